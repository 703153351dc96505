// Draws base and aligned images of each prompt, one column per seed. The value holds ids only;
// it is kept in the browser, so that a reload shows the same images while the server has them.
const root = element.querySelector(".co");
const q = (selector) => root.querySelector(selector);
const LAST = "imgalign.generate.last";
const ROWS = [["base", "Base"], ["aligned", "Aligned"]];

const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};
const url = (id) => `api/generated/${encodeURIComponent(id)}`;
const rowsOf = (value) => ROWS.filter(([key]) => key === "base" || value.has_aligned);

const cell = (value, group, column, [key, name]) => {
  const id = value.groups[group].seeds[column][key];
  const seed = value.groups[group].seeds[column].seed;
  if (!id) return make("div", value.failed ? "co-cell co-never" : "co-cell co-waiting");
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
  q(".co-progress").hidden = !value || value.done >= value.total || Boolean(value.failed);
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
    const table = make("div", "co-table");
    table.style.setProperty("--seeds", group.seeds.length);
    table.append(make("span", "", "seed"), ...group.seeds.map((s) => make("span", "", s.seed)));
    for (const row of rowsOf(value)) {
      table.append(make("b", row[0] === "aligned" ? "co-aligned" : "", row[1]));
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
  q(".co-pair").replaceChildren(...rowsOf(value).map(([key, name]) => {
    const figure = make("figure");
    const image = make("img");
    if (seed[key]) image.src = url(seed[key]);
    image.alt = "";
    figure.append(image, make("figcaption", "", name));
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
