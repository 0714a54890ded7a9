"""Writes the measured numbers into README.md and README.zh.md, between `<!-- bench -->` and `<!-- /bench -->`.

    python scripts/bench_table.py scripts/results/preprocess.json
"""
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CC3M_ROWS = 595_375
HEADS = {
    "README.md": ("| parquet to pixels and token shards | rows/s | CC3M-595K would take | llavm is |", "median of {repeat} runs, llavm on {rows:,} rows, the others on {peer_rows:,}; {machine}", "min"),
    "README.zh.md": ("| parquet 到像素和 token 分片 | 行/秒 | CC3M-595K 需要 | llavm 是它的 |", "{repeat} 次运行的中位数，llavm 处理 {rows:,} 行，其余 {peer_rows:,} 行；{machine}", "分钟"),
}


def table(result: dict, head: str, note: str, minutes: str) -> str:
    ours = result["medians"]["llavm"]["rate"]
    lines = [head, "|---|---:|---:|---:|"]
    for name, median in result["medians"].items():
        rate = median["rate"]
        lines.append(f"| {name} | {rate:,.0f} | {CC3M_ROWS / rate / 60:.0f} {minutes} | {ours / rate:.1f}× |")
    rows = {name.split(",")[0]: round(median["rows"]) for name, median in result["medians"].items() if "rows" in median}
    lines += ["", note.format(**result, rows=rows["llavm"], peer_rows=rows["python"]) + f" · {result['medians']['llavm']['peak_rss_mib']:.0f} MiB"]
    return "\n".join(lines)


def main() -> None:
    result = json.loads(Path(sys.argv[1]).read_text())
    for name, (head, note, minutes) in HEADS.items():
        readme = ROOT / name
        text, found = re.subn(r"<!-- bench -->.*?<!-- /bench -->",
                              f"<!-- bench -->\n{table(result, head, note, minutes)}\n<!-- /bench -->",
                              readme.read_text(encoding="utf-8"), flags=re.DOTALL)
        if found != 1:
            sys.exit(f"{name} has no place for the table: <!-- bench --> … <!-- /bench -->")
        readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
