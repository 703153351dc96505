// Draws what the server says: batches of candidates, and of the chosen one how far it is and what
// it has queued. The value is replaced when something has changed; what the person opened stays open.
const root = element.querySelector(".ba");
const q = (selector) => root.querySelector(selector);
const STATES = { waiting: "Waits", making: "Being made", made: "Ready", stopped: "Stopped", failed: "Failed" };

const drawBatches = listbox(q(".ba-list"), "batch");
const at = (path) => new URL(path, document.baseURI).href;

const state = ({ state, line }) => {
  const [place, of] = line || [];
  return STATES[state].toLowerCase() + (of > 1 ? `, place ${place} of ${of}` : "");
};

const chip = (batch, current) => {
  const node = make("button", "ba-chip");
  node.type = "button";
  node.dataset.batch = batch.name;
  node.setAttribute("role", "option");
  node.setAttribute("aria-selected", batch.name === current);
  node.append(make("b", "", batch.title), make("small", "", `${batch.project}: ${state(batch)}`));
  return node;
};

const sample = (name, samples, id, number) => {
  if (samples === "texts") return make("blockquote", "", id);
  const image = make("img");
  image.loading = "lazy";
  image.alt = `Candidate ${number + 1}`;
  image.src = at(`api/candidates/${encodeURIComponent(name)}/images/${id}`);
  return image;
};

const set = (name, { id, prompt, samples, shown }) => {
  const node = make("article", "ba-set");
  node.dataset.item = id;
  node.dataset.samples = samples;
  const text = make("p", "", prompt);
  text.dir = "auto";
  text.title = prompt;
  const all = make("div");
  all.append(...shown.map((each, number) => sample(name, samples, each, number)));
  node.append(text, all);
  return node;
};

// Sets that are there stay as they are: only new ones are drawn.
const drawSets = (detail) => {
  const box = q(".ba-sets");
  if (seen.batch !== detail.name) box.replaceChildren();
  const there = new Set([...box.children].map((node) => node.dataset.item));
  const wanted = new Set(detail.sets.map(({ id }) => id));
  for (const node of [...box.children]) if (!wanted.has(node.dataset.item)) node.remove();
  box.append(...detail.sets.filter(({ id }) => !there.has(id)).map((each) => set(detail.name, each)));
  q(".ba-more").textContent = detail.more ? `and ${detail.more} more` : "";
};

const drawStanding = (standing) => {
  const box = q(".ba-standing");
  box.hidden = !standing;
  if (!standing || !changed("standing", standing)) return;
  box.replaceChildren(make("b", "", standing.project), `: ${standing.line}. `);
  if (standing.page) {
    const link = make("a", "", standing.next);
    link.href = at(standing.page);
    box.append(link);
  } else {
    box.append(standing.next);
  }
};

// The other projects: one that is pressed tells where it stands, in the line above.
const drawProjects = (projects) => {
  const box = q(".ba-projects");
  box.hidden = !projects.length;
  if (!changed("projects", projects)) return;
  const held = box.contains(document.activeElement);
  box.replaceChildren(make("span", "", "Other projects:"), ...projects.map((project) => {
    const node = make("button", "", project);
    node.type = "button";
    node.dataset.project = project;
    return node;
  }));
  if (held) box.querySelector("button")?.focus();
};

const refresh = () => {
  const value = props.value;
  if (!value) return;
  drawStanding(value.standing);
  drawProjects(value.projects);
  root.removeAttribute("data-wait");
  root.toggleAttribute("data-empty", !value.batches.length);
  const detail = value.detail;
  if (changed("list", [value.batches, detail?.name])) {
    drawBatches(value.batches.map((batch) => chip(batch, detail?.name)));
  }
  q(".ba-batch").hidden = !detail; // of a project that no batch in the list was made for
  if (!detail) return;
  if (seen.batch !== detail.name || changed("state", detail.state)) {
    q(".ba-log").open = detail.state === "failed";
  }
  drawSets(detail);
  seen.batch = detail.name;
  q(".ba-batch").dataset.state = detail.state;
  q(".ba-batch h3").textContent = detail.title;
  q(".ba-state").textContent = STATES[detail.state];
  const underWay = ["waiting", "making"].includes(detail.state);
  q('[data-do="stop"]').hidden = !underWay;
  q('[data-do="now"]').hidden = detail.state !== "waiting";
  const [place, of] = detail.line || [];
  for (const each of ["earlier", "later"]) q(`[data-do="${each}"]`).hidden = !(of > 1);
  q('[data-do="earlier"]').disabled = place === 1;
  q('[data-do="later"]').disabled = place === of;
  q('[data-do="resume"]').hidden = !["stopped", "failed"].includes(detail.state);
  q('[data-do="forget"]').hidden = underWay;
  const rank = q(".ba-buttons a");
  rank.hidden = !detail.sets.length || !detail.rank;
  rank.href = at(detail.rank);
  q(".ba-bar").hidden = detail.state !== "making";
  q(".ba-bar i").style.width = `${100 * (detail.share ?? 0)}%`;
  q(".ba-bar").setAttribute("aria-valuenow", Math.round(100 * (detail.share ?? 0)));
  q(".ba-said").textContent = detail.said;
  if (changed("log", detail.log)) {
    q("pre").textContent = detail.log || "Nothing printed yet.";
    q("pre").scrollTop = q("pre").scrollHeight;
  }
};

root.addEventListener("click", (event) => {
  const chosen = event.target.closest("[data-batch]");
  const project = event.target.closest("[data-project]");
  const button = event.target.closest("[data-do]");
  if (project) {
    trigger("project_select", { project: project.dataset.project });
  } else if (chosen) {
    trigger("batch_select", { batch: chosen.dataset.batch });
  } else if (button) {
    // Named in full: gradio looks for the names of events in this text.
    const events = {
      stop: "batch_stop", now: "batch_now", resume: "batch_resume", forget: "batch_forget",
      earlier: "batch_move", later: "batch_move",
    };
    const later = button.dataset.do === "later";
    trigger(events[button.dataset.do], { batch: props.value.detail.name, later });
  }
});

// The store of an app is the one that it was started on, so another one takes another start.
q(".ba-demos").hidden = !props.demos.length;
q(".ba-demos").append(...props.demos.map(({ folder, command }) => copyable(`A finished demo is in ${folder}:`, command)));

watch("value", refresh);
root.addEventListener("pulse", () => trigger("moved")); // alive.js says so
refresh();
