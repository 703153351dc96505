// Buttons and lists in the tables of the People page: what is drawn anew keeps working, because the
// listener is on what holds it.
const EVENTS = [
  "person_exclude", "person_include", "person_admit", "gold_remove", "account_disable", "account_enable", "account_role",
];
const act = (kind) => (event) => {
  const part = event.target.closest(`${kind}[data-do]`);
  if (!part || part.disabled || !EVENTS.includes(part.dataset.do)) return;
  part.disabled = true; // until the table is drawn anew
  trigger(part.dataset.do, { of: part.dataset.of, ...(kind === "select" && { role: part.value }) });
};
element.addEventListener("click", act("button"));
element.addEventListener("change", act("select"));
