// The controls of the settings that matter, and the search in the table of all. Both write a line of
// the overrides: these are what the server reads.
const root = element.querySelector(".ct");
const grid = root.querySelector(".ct-grid");
const about = root.querySelector(".ct-about");
const ASSIGNED = /^\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\s*=/;

const box = () => document.querySelector("#overrides textarea");
const pathOf = (line) => ASSIGNED.exec(line)?.[1];

// Without a value the line goes.
const withSetting = (text, path, value) => {
  let placed = value === "";
  const lines = text.split("\n").flatMap((line) => {
    if (pathOf(line) !== path) return [line];
    if (placed) return [];
    placed = true;
    return [`${path}=${value}`];
  });
  while (lines.length && !lines[lines.length - 1].trim()) lines.pop();
  if (!placed) lines.push(`${path}=${value}`);
  return lines.join("\n");
};
// At once, not by the server: whoever presses Start next starts with it.
const write = (text) => {
  box().value = text;
  box().dispatchEvent(new Event("input", { bubbles: true }));
  trigger("setting_written");
};

/* ---------- controls ---------- */
const explain = (control) => {
  about.replaceChildren(make("b", "", control.path), document.createTextNode(`: ${control.meaning}`));
};
const set = (control, value) => {
  write(withSetting(box().value, control.path, value === control.usual ? "" : value));
};
const draw = (control, index) => {
  const one = make("div", "ct-one");
  one.dataset.path = control.path;
  const label = make("label", "", control.name);
  const input = make(control.choices.length ? "select" : "input");
  input.id = label.htmlFor = `control-${index}`;
  if (control.choices.length) one.dataset.wide = "";
  else Object.assign(input, { autocomplete: "off", spellcheck: false, inputMode: "decimal" });
  const back = make("button");
  back.type = "button";
  const wrong = make("p", "ct-wrong");
  wrong.id = `control-${index}-wrong`;
  one.append(label, input, back, wrong);
  return one;
};
const show = (one, control) => {
  const [input, back] = [one.querySelector("input, select"), one.querySelector("button")];
  const choices = JSON.stringify(control.choices);
  if (control.choices.length && one.dataset.choices !== choices) {
    one.dataset.choices = choices;
    input.replaceChildren(...control.choices.map(([said, value]) => new Option(said, value)));
  }
  one.toggleAttribute("data-changed", control.value !== control.usual);
  if (document.activeElement !== input || one.dataset.shown === input.value) input.value = control.value;
  one.dataset.shown = control.value;
  input.placeholder = control.usual;
  input.title = control.meaning;
  const wrong = one.querySelector(".ct-wrong");
  wrong.textContent = control.problem;
  wrong.hidden = !control.problem;
  input.setAttribute("aria-invalid", String(Boolean(control.problem)));
  if (control.problem) input.setAttribute("aria-describedby", wrong.id);
  else input.removeAttribute("aria-describedby");
  back.textContent = control.choices.length ? "↺" : `↺ ${control.usual}`;
  back.title = `Back to ${control.usual}, as the recipe says`;
  back.setAttribute("aria-label", `${control.name}: back to ${control.usual}`);
  input.onchange = () => set(control, input.value.trim().replace(/\s+/g, " "));
  back.onclick = () => { input.focus(); set(control, ""); };
  one.onfocusin = one.onpointerenter = () => explain(control);
};
let drawn = null;
const refresh = () => {
  const controls = props.value?.controls;
  if (!controls) return; // the page says that they come
  const paths = controls.map((control) => control.path).join();
  if (paths !== drawn) {
    drawn = paths;
    grid.replaceChildren(...controls.map(draw));
    if (controls.length) explain(controls[0]);
    else about.textContent = "";
  }
  controls.forEach((control, index) => show(grid.children[index], control));
};
// `onfocusin` is no property of elements.
grid.addEventListener("focusin", (event) => event.target.closest(".ct-one")?.onfocusin?.());

/* ---------- another recipe ---------- */
// Its answer fills the form anew, so until then nobody writes into it what that would take away.
let awaited = null;
const hold = (recipe) => {
  awaited = recipe;
  for (const part of root.closest(".side").children) {
    part.inert = recipe !== null && !part.querySelector("#recipe");
  }
};
document.addEventListener("change", (event) => {
  if (event.target.closest("#recipe")) hold(event.target.value);
});

/* ---------- the table of all settings ---------- */
const table = () => document.querySelector("#settings .settings");
let unfolded = false;
const search = () => {
  const found = document.querySelector("#find-setting");
  if (!found || !table()) return;
  const words = found.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const row of table().querySelectorAll("tr[data-setting]")) {
    const text = `${row.dataset.setting} ${row.textContent}`.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    if (!row.hidden) count += 1;
  }
  for (const body of table().querySelectorAll("tbody")) {
    body.hidden = !body.querySelector("tr[data-setting]:not([hidden])");
  }
  const rest = table().querySelector("details");
  if (rest) {
    rest.open = Boolean(words.length) || unfolded;
    rest.hidden = !rest.querySelector("tr[data-setting]:not([hidden])");
  }
  const said = words.length ? `${count} found` : "";
  const note = document.querySelector("#found-settings");
  if (note.textContent !== said) note.textContent = said; // or the observer below never rests
};
const add = (row) => {
  const { setting, value } = row.dataset;
  if (!box().value.split("\n").some((line) => pathOf(line) === setting)) {
    write(withSetting(box().value, setting, value));
  }
  const text = box().value;
  const lines = text.split("\n");
  const before = lines.slice(0, lines.findIndex((line) => pathOf(line) === setting));
  const start = before.reduce((sum, line) => sum + line.length + 1, 0);
  const end = start + lines[before.length].length;
  box().focus();
  box().setSelectionRange(text.indexOf("=", start) + 1, end);
  box().scrollIntoView({ block: "nearest" });
};
// The page's columns come one after another, and the server sends the table anew whenever a setting
// has changed.
const watched = new MutationObserver(search);
const watchTable = () => {
  const settings = document.querySelector("#settings");
  if (settings) watched.observe(settings, { childList: true, subtree: true });
};
document.addEventListener("input", (event) => {
  if (event.target.id === "find-setting") search();
});
document.addEventListener("click", (event) => {
  const inside = event.target.closest("#settings");
  if (!inside) return;
  watchTable();
  const row = event.target.closest("[data-add]")?.closest("tr");
  if (row) add(row);
  const summary = event.target.closest(".settings summary");
  if (summary && !inside.querySelector("#find-setting").value) unfolded = !summary.parentElement.open;
});

watch("value", () => {
  watchTable();
  refresh();
  if (awaited !== null && props.value?.chosen === awaited) hold(null);
});
refresh();
