// Figures that are drawn anew when alive.js says that they may be others, and when something was done.
element.dataset.draws = props.draws;
// Nothing moves below a hand: while the pointer is on a button, while something is asked or being done.
const inHand = () =>
  element.closest(".page").querySelector(".results :is(button:hover, button:disabled, [data-ask][hidden])");
element.addEventListener("pulse", ({ detail }) => {
  if (detail !== "asked" && inHand()) {
    element.dataset.mark = ""; // alive.js says it again
    return;
  }
  if (detail === "asked") element.dataset.at = performance.now();
  element.dataset.pulse = element.dataset.draws; // not before the page has asked for the first
  trigger("moved");
});
