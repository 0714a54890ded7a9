"""Makes stages/src/metrics/ptb_chars.rs: what Java's PTB tokenizer does with every character of the basic plane.

    pip install pycocoevalcap==1.2     (and a Java runtime)
    python make_ptb_chars.py

Each character stands between two words, `ab?cd`. It is dropped where the words come out alone, a sign where it comes out
as a word of its own, else a letter. ASCII, whose rules ptb.rs spells out, is left out of the tables.
"""

import os
import subprocess
import tempfile

import pycocoevalcap.tokenizer.ptbtokenizer as ptb

HERE = os.path.dirname(os.path.abspath(__file__))
JAR = os.path.join(os.path.dirname(ptb.__file__), ptb.STANFORD_CORENLP_3_4_1_JAR)
LINE_ENDS = {0x85, 0x2028, 0x2029, 0xFFFE, 0xFFFF}
# Joiners and signs that ptb.rs spells out.
SPELLED = {0xAD, 0x2010, 0x2011}


def answers(points):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "in.txt")
        with open(path, "w", encoding="utf8") as file:
            file.writelines(f"ab{chr(point)}cd\n" for point in points)
        command = ["java", "-Dfile.encoding=UTF-8", "-cp", JAR, "edu.stanford.nlp.process.PTBTokenizer",
                   "-preserveLines", "-lowerCase", "-encoding", "UTF-8", path]
        lines = subprocess.run(command, capture_output=True, check=True).stdout.decode("utf8").split("\n")
    assert len(lines) == len(points) + 1, (len(lines), len(points))
    return [line.split() for line in lines[:-1]]


def ranges(points):
    found = []
    for point in points:
        if found and found[-1][1] == point - 1:
            found[-1][1] = point
        else:
            found.append([point, point])
    return found


def table(name, about, points):
    rows = ranges(points)
    cells = [f"(0x{start:X}, 0x{end:X})," for start, end in rows]
    lines = [" ".join(cells[at:at + 6]) for at in range(0, len(cells), 6)]
    body = "\n".join(f"    {line}" for line in lines)
    return f"/// {about}\n#[rustfmt::skip]\npub const {name}: [(u16, u16); {len(rows)}] = [\n{body}\n];\n"


points = [point for point in range(0x80, 0x10000) if not 0xD800 <= point < 0xE000 and point not in LINE_ENDS]
found = dict(zip(points, answers(points)))
dropped = [point for point in points if found[point] == ["ab", "cd"]] + sorted(LINE_ENDS)
dropped = sorted(set(dropped) - SPELLED)
signs = sorted({point for point in points if len(found[point]) == 3} | SPELLED)
with open(os.path.join(HERE, "../../src/metrics/ptb_chars.rs"), "w") as file:
    file.write("//! Characters beyond ASCII as Stanford's `PTBTokenizer` 3.4.1 sees them; all others are letters. Made by\n"
               "//! `tests/metrics/make_ptb_chars.py`.\n\n")
    file.write(table("DROPPED", "Dropped; a word ends at each.", dropped))
    file.write("\n")
    file.write(table("SIGNS", "Words of their own.", signs))
