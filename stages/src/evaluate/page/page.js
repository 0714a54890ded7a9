const cards = [...document.querySelectorAll(".card")];
const search = document.getElementById("search");
const state = { show: "all", order: "worst" };
function refresh() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const card of cards) {
    let any = false;
    for (const turn of card.querySelectorAll(".turn")) {
      const text = turn.textContent.toLowerCase() + " " + card.querySelector(".id").textContent.toLowerCase();
      const kind = state.show === "all" || turn.classList.contains(state.show);
      turn.hidden = !(kind && words.every(word => text.includes(word)));
      any = any || !turn.hidden;
    }
    card.hidden = !any;
    shown += any;
  }
  document.getElementById("count").textContent = shown + " of " + cards.length;
}
function order() {
  const sign = state.order === "worst" ? 1 : -1;
  const parent = cards.length && cards[0].parentNode;
  [...cards].sort((a, b) => sign * (a.dataset.rank - b.dataset.rank)).forEach(card => parent.append(card));
}
for (const button of document.querySelectorAll(".controls button")) {
  button.addEventListener("click", () => {
    for (const other of button.parentNode.children) other.setAttribute("aria-pressed", other === button);
    if (button.dataset.show) state.show = button.dataset.show; else { state.order = button.dataset.order; order(); }
    refresh();
  });
}
if (search) { search.addEventListener("input", refresh); refresh(); }
