// Buttons in the tables of the People page: what is drawn anew keeps working, because the listener is
// on what holds it.
const EVENTS = [
  "person_exclude", "person_include", "person_admit", "gold_remove", "account_disable", "account_enable", "account_role",
];
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-do]");
  if (!button || button.disabled || !EVENTS.includes(button.dataset.do)) return;
  button.disabled = true; // until the table is drawn anew
  trigger(button.dataset.do, { of: button.dataset.of, role: button.dataset.role });
});
