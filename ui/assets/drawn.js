// Figures that are drawn anew when alive.js says that they may be others, and when something was done.
element.dataset.draws = props.draws;
// Forms beside it get what the drawing of a project brings, which replaces what is typed before: until
// then, at first and while another project is drawn (people.py), nobody writes into them.
const forms = element.closest(".page").querySelector(":scope > .later");
if (forms) forms.inert = true;
// Nothing moves below a hand: while the pointer is on a button, while something is asked or being done.
const inHand = () =>
  element.closest(".page").querySelector(".results :is(button:hover, button:disabled, [data-ask][hidden])");
// What is drawn first is at least as new as the mark that is asked for before: a vote between the two, or
// between the drawing and the next look of alive.js, is a change. Without an answer the next look draws again.
let marked;
const firstMark = async () => {
  try {
    const asked = new URL(`api/alive?of=${element.dataset.draws}`, document.baseURI);
    const answer = await fetch(asked, { signal: AbortSignal.timeout(2000), cache: "no-store" });
    if (answer.ok) element.dataset.mark = (await answer.json()).mark;
  } catch {
    // the app is away: alive.js says so
  }
};
// Asked for twice within a moment, it is drawn once: until Gradio has noted that an event is on its way it
// runs the next one beside it, and a Dropdown tells of one choice twice, and of none when the focus leaves it.
const APART_MS = 50;
let last = -APART_MS;
let due;
const drawSoon = () => {
  due ??= setTimeout(
    () => {
      due = undefined;
      last = performance.now();
      trigger("moved");
    },
    Math.max(0, last + APART_MS - performance.now()),
  );
};
element.addEventListener("pulse", async ({ detail }) => {
  if (detail !== "asked" && inHand()) {
    element.dataset.mark = ""; // alive.js says it again
    return;
  }
  if (!element.dataset.pulse) await (marked ??= firstMark());
  element.dataset.pulse = element.dataset.draws; // not before the page has asked for the first
  drawSoon();
});
