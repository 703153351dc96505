// Buttons in the tables of the People page: what is drawn anew keeps working, because the listener is
// on what holds it.
const EVENTS = [
  "person_exclude", "person_include", "person_admit", "gold_remove", "attention_withdraw", "attention_back",
  "account_disable", "account_enable", "account_role", "account_reset",
];
element.addEventListener("click", (event) => {
  const asked = event.target.closest("button[data-ask], button[data-keep]"); // what is asked stands behind its button
  if (asked) {
    const ask = asked.closest("td").querySelector("button[data-ask]");
    const question = ask.nextElementSibling;
    ask.hidden = asked === ask;
    question.hidden = !ask.hidden;
    (ask.hidden ? question.querySelector("button[data-keep]") : ask).focus();
    return;
  }
  const button = event.target.closest("button[data-do]");
  if (!button || button.disabled || !EVENTS.includes(button.dataset.do)) return;
  button.disabled = true; // until the table is drawn anew
  trigger(button.dataset.do, { of: button.dataset.of, role: button.dataset.role });
});
// Rows move when others come: the keyboard stays with the row that it was on.
let held = null;
element.addEventListener("focusin", ({ target }) => { held = { ...target.dataset }; });
watch("value", () => {
  const now = document.activeElement;
  if (!held?.of || !element.contains(now) || now.dataset.of === held.of) return;
  const own = [...element.querySelectorAll("button[data-of]")].filter((each) => each.dataset.of === held.of);
  const same = own.find(({ dataset }) => dataset.do === held.do && dataset.role === held.role) ?? own[0];
  if (same) same.focus({ preventScroll: true });
  else now.blur();
});
orderWhenThere();
