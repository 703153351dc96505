// Draws the images of each prompt: a row for the base and for each checkpoint, one column per seed.
// The value holds ids and texts; the latest ones are kept in the browser, so that a reload shows the
// same images, and a list the earlier ones, while the server has them. Texts go into the page as
// text and never as markup. One seed, large, is in large.js.
const root = element.querySelector(".co");
const q = (selector) => root.querySelector(selector);
const HISTORY = "imgalign.generate.history";
const MOST = 12;
const PART = { kept: "span", added: "ins", removed: "del" };

const url = (id) => `api/generated/${encodeURIComponent(id)}`;
// The prompt with the words that its rewrite adds and removes, and what became of the tries.
const rewriteOf = (rewrite) => {
  const box = make("div", "co-rewrite");
  const text = make("p");
  for (const [kind, words] of rewrite.difference) {
    const indent = words.length - words.trimStart().length;
    text.append(words.slice(0, indent), make(PART[kind] ?? "span", "", words.slice(indent)));
  }
  if (rewrite.changed) box.append(text);
  box.append(make("p", "co-said", rewrite.said.join("; ")));
  return box;
};

const imageOf = (id) => {
  const image = make("img");
  image.src = url(id);
  image.alt = "";
  return image;
};

const cell = (value, group, column, { key, name }) => {
  const { seed, [key]: id } = value.groups[group].seeds[column];
  if (!id) return make("div", value.failed || value.stopped ? "co-cell co-never" : "co-cell co-waiting");
  const button = make("button", "co-cell");
  button.type = "button";
  button.dataset.group = group;
  button.dataset.column = column;
  button.setAttribute("aria-label", `${name}, seed ${seed}, show large`);
  button.append(imageOf(id));
  return button;
};

const tableOf = (value, group, index) => {
  const table = make("div", "co-table");
  table.style.setProperty("--seeds", group.seeds.length);
  table.append(make("span", "", "seed"), ...group.seeds.map((s) => make("span", "", s.seed)));
  for (const row of value.rows) {
    const name = make("b", row.checkpoint ? "co-aligned" : "");
    // A name of a run may be broken where its words end.
    for (const word of row.name.split(/(?<=[_/-])/)) name.append(word, make("wbr"));
    table.append(name);
    table.append(...group.seeds.map((_, column) => cell(value, index, column, row)));
  }
  return table;
};

// A prompt is drawn anew only when something of it has changed: an image that is there stays as it
// is, with its focus, while others are drawn.
const boxOf = (value, group, index, before) => {
  const state = JSON.stringify([value.rows, group, value.failed || value.stopped]);
  if (before?.dataset.state === state) return before;
  const box = make("section", "co-prompt");
  box.dataset.state = state;
  box.append(make("h3", "", group.prompt));
  if (group.unread) {
    box.append(make("p", "co-unread", `Too long: the text encoder truncates “${group.unread}”`));
  }
  if (group.rewrite) box.append(rewriteOf(group.rewrite));
  box.append(tableOf(value, group, index));
  const old = before ? [...before.querySelectorAll("button.co-cell img")] : [];
  for (const image of box.querySelectorAll("button.co-cell img")) {
    // Each serves once: a prompt that its rewriter left as it is has the same image in two rows.
    const at = old.findIndex((each) => each.src === image.src);
    if (at >= 0) image.replaceWith(...old.splice(at, 1));
  }
  return box;
};

const timeLeft = (seconds) => {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 90) return `, about ${Math.max(1, Math.round(seconds))} s left`;
  return `, about ${Math.round(seconds / 60)} min left`;
};

// All images that there are, those that stand in two rows once.
const idsOf = (value) => [...new Set(value.groups.flatMap((group) =>
  group.seeds.flatMap((seed) => value.rows.map(({ key }) => seed[key]))))].filter(Boolean);

// What was drawn before, the latest first; nothing where the browser keeps nothing.
const history = () => {
  try {
    const kept = JSON.parse(localStorage.getItem(HISTORY));
    return Array.isArray(kept) ? kept.filter((each) => each?.value?.groups?.length) : [];
  } catch {
    return [];
  }
};

const keep = (value) => {
  const ids = idsOf(value).join();
  const others = history().filter((each) => idsOf(each.value).join() !== ids);
  const again = history().length > others.length;
  if (!ids || again) return;
  try {
    localStorage.setItem(HISTORY, JSON.stringify([{ at: Date.now(), value }, ...others].slice(0, MOST)));
  } catch {
    return;
  }
  drawHistory();
};

const drawHistory = () => {
  const earlier = history();
  q(".co-history").hidden = !earlier.length;
  q(".co-history ul").replaceChildren(...earlier.map(({ at, value }, index) => {
    const button = make("button", "");
    const when = new Date(at).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
    const names = value.rows.filter((row) => row.checkpoint && !row.rewritten).map((row) => row.name);
    const count = idsOf(value).length;
    button.append(
      make("span", "", when),
      make("b", "", value.groups.map((group) => group.prompt).join(", ")),
      make("span", "", [`${count} ${count === 1 ? "image" : "images"}`, ...names].join(", ")),
    );
    button.type = "button";
    button.dataset.earlier = index;
    const item = make("li", "");
    item.append(button);
    return item;
  }));
};

const refresh = () => {
  const value = props.value;
  if (value) restoring = false;
  root.toggleAttribute("data-wait", restoring);
  root.toggleAttribute("data-empty", !value?.groups?.length);
  const busy = Boolean(value) && value.done < value.total && !value.failed && !value.stopped;
  q(".co-progress").hidden = !busy;
  if (changed("busy", busy) && busy) foldForm();
  q(".co-stopped").hidden = !value?.stopped;
  q(".co-stopped").textContent = value?.stopped ?? "";
  q(".co-failed").hidden = !value?.failed;
  q(".co-failed").textContent = value?.failed ?? "";
  if (!value) {
    q(".co-list").replaceChildren();
    q(".co-files").hidden = true;
    return;
  }
  q(".co-bar i").style.width = `${(100 * value.share).toFixed(1)}%`;
  q(".co-doing").textContent = value.doing ?? "";
  q(".co-count").textContent = value.total
    ? `${value.done} of ${value.total} images${timeLeft(value.seconds_left)}`
    : "";
  const ids = busy ? [] : idsOf(value);
  q(".co-files").hidden = !ids.length;
  q(".co-files a").href = `api/generated-files?ids=${ids.map(encodeURIComponent).join()}`;
  const before = [...q(".co-list").children];
  const focused = document.activeElement?.getAttribute("aria-label");
  const inside = document.activeElement?.closest(".co-prompt");
  const boxes = value.groups.map((group, index) => boxOf(value, group, index, before[index]));
  boxes.forEach((box, index) => {
    if (box === before[index]) return;
    if (before[index]) before[index].replaceWith(box);
    else q(".co-list").append(box);
    if (inside && before[index] === inside) {
      [...box.querySelectorAll("button")].find((b) => b.getAttribute("aria-label") === focused)?.focus();
    }
  });
  before.slice(boxes.length).forEach((box) => box.remove());
  if (value.done === value.total) keep(value);
};

root.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.idea) {
    trigger("idea", { prompt: button.dataset.idea });
  } else if (button.dataset.earlier !== undefined) {
    const { value } = history()[Number(button.dataset.earlier)];
    trigger("restore", { last: JSON.stringify(value), asked: true });
  } else if (button.dataset.group !== undefined) {
    openLarge({ group: Number(button.dataset.group), column: Number(button.dataset.column) });
  }
});

for (const idea of props.ideas) {
  const button = make("button", "", idea);
  button.type = "button";
  button.dataset.idea = idea;
  q(".co-ideas").append(button);
}

let restoring = !props.value && history().length > 0;
watch("value", refresh);
refresh();
drawHistory();
if (restoring) {
  trigger("restore", { last: JSON.stringify(history()[0].value), asked: false });
}
