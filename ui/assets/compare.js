// Draws base and aligned images of each prompt and its rewrite, one column per seed. The value holds
// ids and texts; it is kept in the browser, so that a reload shows the same images while the server
// has them. Texts go into the page as text and never as markup.
const root = element.querySelector(".co");
const q = (selector) => root.querySelector(selector);
const LAST = "imgalign.generate.last";
const ROWS = [
  { key: "base", name: "Base", aligned: false, rewritten: false },
  { key: "base_rewritten", name: "Base, rewritten", aligned: false, rewritten: true },
  { key: "aligned", name: "Aligned", aligned: true, rewritten: false },
  { key: "aligned_rewritten", name: "Aligned, rewritten", aligned: true, rewritten: true },
];
const PART = { kept: "span", added: "ins", removed: "del" };

const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};
const url = (id) => `api/generated/${encodeURIComponent(id)}`;
const rowsOf = (value) => ROWS.filter((row) =>
  (!row.aligned || value.has_aligned) && (!row.rewritten || value.has_rewritten));

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

const cell = (value, group, column, { key, name }) => {
  const id = value.groups[group].seeds[column][key];
  const seed = value.groups[group].seeds[column].seed;
  if (!id) return make("div", value.failed || value.stopped ? "co-cell co-never" : "co-cell co-waiting");
  const button = make("button", "co-cell");
  button.type = "button";
  button.dataset.group = group;
  button.dataset.column = column;
  button.setAttribute("aria-label", `${name}, seed ${seed}, show large`);
  const image = make("img");
  image.src = url(id);
  image.alt = "";
  button.append(image);
  return button;
};

const refresh = () => {
  const value = props.value;
  root.toggleAttribute("data-empty", !value?.groups?.length);
  q(".co-progress").hidden =
    !value || value.done >= value.total || Boolean(value.failed || value.stopped);
  q(".co-stopped").hidden = !value?.stopped;
  q(".co-stopped").textContent = value?.stopped ?? "";
  q(".co-failed").hidden = !value?.failed;
  q(".co-failed").textContent = value?.failed ?? "";
  if (!value) {
    q(".co-list").replaceChildren();
    return;
  }
  q(".co-bar i").style.width = `${(100 * value.share).toFixed(1)}%`;
  q(".co-progress p").textContent = value.total
    ? `${value.doing}: ${value.done} of ${value.total} images`
    : value.doing;
  const boxes = value.groups.map((group, index) => {
    const box = make("section", "co-prompt");
    box.append(make("h3", "", group.prompt));
    if (group.unread) {
      box.append(make("p", "co-unread", `Too long: the text encoder truncates “${group.unread}”`));
    }
    if (group.rewrite) box.append(rewriteOf(group.rewrite));
    const table = make("div", "co-table");
    table.style.setProperty("--seeds", group.seeds.length);
    table.append(make("span", "", "seed"), ...group.seeds.map((s) => make("span", "", s.seed)));
    for (const row of rowsOf(value)) {
      table.append(make("b", row.aligned ? "co-aligned" : "", row.name));
      table.append(...group.seeds.map((_, column) => cell(value, index, column, row)));
    }
    box.append(table);
    return box;
  });
  q(".co-list").replaceChildren(...boxes);
  if (value.done === value.total) localStorage.setItem(LAST, JSON.stringify(value));
};

/* ---------- one seed, large ---------- */
let at = null;
const drawLarge = () => {
  const value = props.value;
  const group = value.groups[at.group];
  const seed = group.seeds[at.column];
  q(".co-large header p").textContent = `${group.prompt}, seed ${seed.seed}`;
  q(".co-pair").replaceChildren(...rowsOf(value).map(({ key, name, rewritten }) => {
    const figure = make("figure");
    const image = make("img");
    if (seed[key]) image.src = url(seed[key]);
    image.alt = "";
    const said = rewritten && group.rewrite ? `${name}: ${group.rewrite.text}` : name;
    figure.append(image, make("figcaption", "", said));
    return figure;
  }));
};
const step = (by) => {
  const count = props.value.groups[at.group].seeds.length;
  at.column = (at.column + by + count) % count;
  drawLarge();
};
root.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.idea) {
    trigger("idea", { prompt: button.dataset.idea });
  } else if (button.dataset.group !== undefined) {
    at = { group: Number(button.dataset.group), column: Number(button.dataset.column) };
    drawLarge();
    q(".co-large").showModal();
  } else if (button.dataset.step) {
    step(Number(button.dataset.step));
  } else if (button.dataset.close !== undefined) {
    q(".co-large").close();
  }
});
q(".co-large").addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    event.preventDefault();
    step(event.key === "ArrowLeft" ? -1 : 1);
  }
});

for (const idea of props.ideas) {
  const button = make("button", "", idea);
  button.type = "button";
  button.dataset.idea = idea;
  q(".co-ideas").append(button);
}

watch("value", refresh);
refresh();
if (!props.value && localStorage.getItem(LAST)) {
  trigger("restore", { last: localStorage.getItem(LAST) });
}
