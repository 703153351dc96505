// Draws what the server says: runs, the curves and images of the chosen one, its log. The value
// is replaced when something has changed; what the person does here (hover, slider, open log) stays.
const root = element.querySelector(".mo");
const q = (selector) => root.querySelector(selector);
const SVG = "http://www.w3.org/2000/svg";
const stored = remembered("imgalign.train.run"); // without it the newest run is shown after a reload
const drawRuns = listbox(q(".mo-runs"), "run");

const draw = (tag, attributes, text) => {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
};
const short = (value) => {
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 10000)) return value.toExponential(1);
  return String(+value.toPrecision(3));
};
const duration = (seconds) => {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
};

/* ---------- charts ---------- */
const WIDTH = 520;
const HEIGHT = 150;
const LEFT = 46;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 20;

const ticks = (low, high, count) => {
  const step = 10 ** Math.floor(Math.log10((high - low) / count));
  const nice = [1, 2, 5, 10].find((m) => (high - low) / (m * step) <= count) * step;
  const out = [];
  for (let at = Math.ceil(low / nice) * nice; at <= high + nice * 1e-6; at += nice) out.push(at);
  return out;
};

const chart = ({ title, about, lines }) => {
  const box = make("div", "mo-chart");
  const head = make("h4", "", title);
  const legend = make("span", "mo-key");
  head.append(legend);
  box.append(head, make("p", "", about));
  const points = lines.flatMap((line) => line.points);
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  box.append(svg);
  svg.setAttribute("aria-label", `${title}: ${lines
    .filter((line) => line.points.length)
    .map((line) => `${line.name} ${short(line.points[line.points.length - 1][1])}`)
    .join(", ") || "nothing measured yet"}`);
  if (!points.length) {
    const empty = { x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle" };
    svg.append(draw("text", empty, "Nothing measured yet"));
    return box;
  }
  const xs = points.map((p) => p[0]);
  const ys = points.map((p) => p[1]);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs, Math.min(...xs) + 1)];
  let [y0, y1] = [Math.min(...ys), Math.max(...ys)];
  const room = (y1 - y0 || Math.abs(y1) || 1) * 0.08;
  [y0, y1] = [y0 - room, y1 + room];
  const x = (v) => LEFT + ((v - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT);
  const y = (v) => HEIGHT - BOTTOM - ((v - y0) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM);
  for (const at of ticks(y0, y1, 4)) {
    svg.append(
      draw("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(at), y2: y(at) }),
      draw("text", { x: LEFT - 7, y: y(at) + 4, "text-anchor": "end" }, short(at)),
    );
  }
  for (const at of ticks(x0, x1, 6).filter(Number.isInteger)) {
    const anchor = at === x0 ? "start" : "middle";
    svg.append(draw("text", { x: x(at), y: HEIGHT - 4, "text-anchor": anchor }, at));
  }
  const colorOf = (line) => (lines.indexOf(line) ? "var(--two)" : "var(--one)");
  lines.forEach((line, index) => {
    const color = colorOf(line);
    const entry = make("span", "", "");
    const swatch = make("i");
    swatch.style.background = color;
    entry.append(swatch, document.createTextNode(line.name));
    entry.title = line.about;
    if (!line.points.length) return;
    if (lines.length > 1) legend.append(entry);
    const path = line.points.map((p, i) => `${i ? "L" : "M"}${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`);
    svg.append(draw("path", { d: path.join(""), stroke: color, opacity: index ? 1 : 0.85 }));
    const marked = line.points.length <= 40 ? line.points : line.points.slice(-1);
    for (const p of marked) {
      svg.append(draw("circle", { cx: x(p[0]), cy: y(p[1]), r: index ? 3 : 2, fill: color }));
    }
  });
  const hair = draw("line", { class: "hair", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  const note = draw("text", { y: TOP + 4, visibility: "hidden" });
  svg.append(hair, note);
  svg.addEventListener("pointermove", (event) => {
    const area = svg.getBoundingClientRect();
    const scale = Math.min(area.width / WIDTH, area.height / HEIGHT);
    const inset = (area.width - WIDTH * scale) / 2;
    const at = x0 + (((event.clientX - area.left - inset) / scale - LEFT) / (WIDTH - LEFT - RIGHT)) * (x1 - x0);
    const near = (line) =>
      line.points.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a), line.points[0]);
    const found = lines.filter((line) => line.points.length).map((line) => [line, near(line)]);
    const middle = x(found[0][1][0]);
    hair.setAttribute("x1", middle);
    hair.setAttribute("x2", middle);
    const right = middle > WIDTH / 2;
    note.setAttribute("x", middle + (right ? -7 : 7));
    note.setAttribute("text-anchor", right ? "end" : "start");
    note.replaceChildren(...found.map(([line, p], index) => draw(
      "tspan",
      { fill: colorOf(line), dx: index ? 12 : 0 },
      `iteration ${p[0]}: ${short(p[1])}`,
    )));
    for (const node of [hair, note]) node.setAttribute("visibility", "visible");
  });
  svg.addEventListener("pointerleave", () => {
    for (const node of [hair, note]) node.setAttribute("visibility", "hidden");
  });
  return box;
};

// Only those that have changed are drawn anew.
const states = new WeakMap();
const drawCharts = ({ name, state, charts: all, waits }) => {
  const box = q(".mo-charts");
  // Of a run that is over nothing comes any more.
  const over = OVER.includes(state) && !waits;
  const charts = all.filter(({ lines }) => !over || lines.some(({ points }) => points.length));
  charts.forEach((each, place) => {
    const state = JSON.stringify([name, each]);
    const before = box.children[place];
    if (before && states.get(before) === state) return;
    const drawn = chart(each);
    states.set(drawn, state);
    if (before) before.replaceWith(drawn);
    else box.append(drawn);
  });
  while (box.children.length > charts.length) box.lastChild.remove();
};

/* ---------- runs and the chosen one ---------- */
const brief = (run) => {
  if (run.waits?.held) return "cannot start";
  if (run.waits) return run.waits.place === 1 ? "next in line" : `waiting, number ${run.waits.place}`;
  if (run.state === "running" && run.total) {
    const left = run.eta_seconds ? `, ${duration(run.eta_seconds)} left` : "";
    return `${run.step} of ${run.total}${left}`;
  }
  return run.state === "starting" ? "starting…" : `${run.state}${run.step ? `, iteration ${run.step}` : ""}`;
};
const where = (run) => {
  if (run.waits?.held) return `It was its turn, but: ${run.waits.held}`;
  if (run.waits) {
    const { place, of, what } = run.waits;
    return `Number ${place} of ${of} in line, ${what}. It starts by itself when those before it have ended.`;
  }
  if (run.charts_failed) return run.charts_failed;
  if (run.state === "starting") return run.doing;
  if (run.state !== "running") return run.message;
  const left = run.eta_seconds ? `, about ${duration(run.eta_seconds)} left` : "";
  const done = `${run.step} of ${run.total} iterations done${left}`;
  return run.doing ? `${run.doing} (${done})` : done;
};

let heard = new Date();

const drawSamples = (run) => {
  const figure = q(".mo-samples");
  figure.hidden = !run.samples.length;
  if (figure.hidden) return;
  if (changed("prompts", run.prompts)) {
    q(".mo-samples ol").replaceChildren(...run.prompts.map((prompt) => make("li", "", prompt)));
  }
  const slider = q(".mo-samples input");
  const newest = run.samples.length - 1;
  const following = Number(slider.value) >= Number(slider.max) || seen.run !== run.name;
  slider.max = newest;
  if (following) slider.value = newest;
  slider.hidden = newest === 0;
  const file = run.samples[Number(slider.value)];
  const image = q(".mo-samples img");
  const url = `api/runs/${encodeURIComponent(run.name)}/samples/${file}`;
  if (image.getAttribute("src") !== url) image.src = url;
  const iteration = Number(/\d+/.exec(file)[0]);
  const word = Number(slider.value) === newest ? "newest" : `of ${run.samples.length}`;
  q(".mo-samples figcaption").replaceChildren(
    document.createTextNode("Samples"),
    make("small", "", `iteration ${iteration}, ${word}`),
  );
};

/* ---------- what a run came to, and its end ---------- */
const to = (page, text) => {
  const link = make("a", "", text);
  link.href = page;
  return link;
};
const drawVerdict = ({ verdict }) => {
  const box = q(".mo-verdict");
  box.hidden = !verdict;
  if (!verdict) return;
  const next = make("div", "mo-next");
  if (verdict.compare) {
    const link = to(verdict.compare, "Compare it on Generate");
    link.className = "btn btn-primary";
    const how = make("p", "", "Is it better than its base? Draw new prompts with both there, and send them to ranking as a blind comparison: ");
    how.append(to("results", "Results"), " says who won.");
    next.append(link, how);
  }
  if (verdict.downloads.length) {
    const home = make("div", "mo-home tools");
    home.dataset.files = "api/exports";
    home.dataset.what = "the LoRA for ";
    const [said, wrong] = [make("p"), make("p")];
    said.setAttribute("role", "status");
    wrong.setAttribute("role", "alert");
    wrong.hidden = true;
    home.append(make("span", "", "Take it home as a LoRA for "), ...verdict.downloads.map(([tool, address]) => {
      const button = make("button", "btn", tool);
      button.type = "button";
      button.dataset.take = address;
      return button;
    }), said, wrong);
    next.append(home);
  }
  next.append(copyable("Its files", verdict.path));
  const terminal = make("details", "mo-terminal for-admins");
  terminal.append(
    make("summary", "", "On a terminal"),
    ...verdict.commands.map(([why, text]) => copyable(why, text)),
  );
  next.append(terminal);
  box.replaceChildren(
    make("h4", "", verdict.headline),
    ...verdict.facts.map((fact) => make("p", "", fact)),
    next,
  );
};
const OVER = ["failed", "stopped", "finished", "damaged"];
const askDelete = (open) => {
  const { name, work } = props.value.detail;
  const form = q(".mo-delete");
  form.hidden = !open;
  if (!open) return;
  form.dataset.of = name;
  const input = form.querySelector("input");
  input.hidden = !work;
  input.value = "";
  input.setAttribute("aria-label", `Type ${name} to delete it`);
  form.querySelector("p").textContent = work
    ? `${name} holds ${work}. To delete all of it for good, type ${name}:`
    : `Delete ${name}? It failed before it made anything; its log goes with it.`;
  form.querySelector(".mo-danger").disabled = Boolean(work);
  (work ? input : form.querySelector("[data-do=spare]")).focus();
};

const refresh = () => {
  const value = props.value;
  root.toggleAttribute("data-wait", !value?.runs);
  root.toggleAttribute("data-empty", value?.runs?.length === 0);
  orderWhenThere();
  heard = new Date();
  q(".mo-line").hidden = !value?.queue_failed;
  q(".mo-line").textContent = value?.queue_failed ?? "";
  q(".mo-missing").hidden = !value?.missing;
  q(".mo-missing span").textContent = value?.missing?.said ?? "";
  q(".mo-missing a").hidden = !value?.missing?.of_rank;
  if (!value?.runs?.length) return;
  const { runs, detail } = value;
  if (changed("runs", [runs, detail?.name])) {
    drawRuns(runs.map((run) => {
      const chip = make("button", "mo-chip");
      chip.type = "button";
      chip.dataset.state = run.state;
      chip.dataset.run = run.name;
      chip.toggleAttribute("data-waits", Boolean(run.waits));
      chip.toggleAttribute("data-held", Boolean(run.waits?.held));
      chip.setAttribute("role", "option");
      chip.setAttribute("aria-selected", String(run.name === detail?.name));
      chip.append(make("span", "mo-dot"), make("b", "", run.name), make("small", "", brief(run)));
      return chip;
    }));
  }
  if (!detail) return;
  const panel = q(".mo-run");
  panel.dataset.state = detail.state;
  panel.toggleAttribute("data-blank", detail.blank);
  panel.toggleAttribute("data-held", Boolean(detail.waits?.held));
  const line = detail.waits;
  for (const each of ["earlier", "later", "now", "leave"]) q(`[data-do="${each}"]`).hidden = !line;
  q('[data-do="earlier"]').disabled = line?.place === 1;
  q('[data-do="later"]').disabled = line?.place === line?.of;
  q(".mo-run h3").textContent = detail.name;
  q(".mo-state").textContent = line && !detail.blank ? `${detail.state}, waiting` : detail.state;
  q(".mo-where").textContent = where(detail);
  q('[data-do="stop"]').hidden = !detail.ours;
  q('[data-do="stop"]').disabled = detail.stopping;
  q('[data-do="resume"]').hidden = !detail.resumable || Boolean(line);
  q('[data-do="copy"]').hidden = detail.state === "damaged";
  q('[data-do="ask-delete"]').hidden = detail.ours || Boolean(line) || !OVER.includes(detail.state);
  const asked = q(".mo-delete");
  if (asked.dataset.of !== detail.name || q('[data-do="ask-delete"]').hidden) asked.hidden = true;
  if (changed("verdict", [detail.name, detail.verdict])) drawVerdict(detail);
  const share = detail.total ? (100 * detail.step) / detail.total : 0;
  q(".mo-bar i").style.width = `${share}%`;
  q(".mo-bar").setAttribute("aria-valuemax", detail.total);
  q(".mo-bar").setAttribute("aria-valuenow", detail.step);
  drawCharts(detail);
  drawSamples(detail);
  if (changed("log", detail.log)) {
    const log = q("pre");
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 40;
    log.textContent = detail.log || "Nothing printed by a process of this app.";
    if (atEnd) log.scrollTop = log.scrollHeight;
  }
  if (seen.run !== detail.name) q(".mo-log").open = detail.state === "failed";
  seen.run = detail.name;
};

root.addEventListener("click", (event) => {
  const chip = event.target.closest("[data-run]");
  const button = event.target.closest("[data-do]");
  if (chip) {
    stored.set(chip.dataset.run);
    trigger("run_select", { run: chip.dataset.run });
  } else if (button?.dataset.do === "form") {
    document.querySelector(".side").scrollIntoView();
  } else if (button) {
    const run = props.value.detail.name;
    if (button.dataset.do === "stop") button.disabled = true; // until the next look at the run
    const events = {
      stop: "run_stop", resume: "run_resume", copy: "run_copy",
      earlier: "line_move", later: "line_move", now: "line_start", leave: "line_remove",
    };
    if (button.dataset.do === "ask-delete") askDelete(true);
    else if (button.dataset.do === "spare") askDelete(false);
    else if (events[button.dataset.do]) trigger(events[button.dataset.do], { run, later: button.dataset.do === "later" });
    if (button.dataset.do === "copy") document.querySelector("#recipe").scrollIntoView({ block: "center" });
  }
});
q(".mo-delete").addEventListener("input", (event) => {
  q(".mo-danger").disabled = event.target.value !== q(".mo-delete").dataset.of;
});
q(".mo-delete").addEventListener("submit", (event) => {
  event.preventDefault();
  trigger("run_delete", { run: q(".mo-delete").dataset.of, typed: q(".mo-delete input").value });
  q(".mo-delete").hidden = true;
});
q(".mo-samples input").addEventListener("input", () => drawSamples(props.value.detail));
q(".mo-log").addEventListener("toggle", () => {
  q("pre").scrollTop = q("pre").scrollHeight;
});

watch("value", refresh);
root.addEventListener("pulse", () => trigger("moved")); // alive.js says so
refresh();
if (stored.get()) trigger("run_select", { run: stored.get() });

// Dots of what goes on blink. An animation of the style would be drawn sixty times a second.
const still = matchMedia("(prefers-reduced-motion: reduce)");
setInterval(() => {
  const goes = q('.mo-chip:is([data-state="running"], [data-state="starting"], [data-state="stopping"])');
  const on = goes && !still.matches && !root.matches("[data-gone], [data-beat]");
  if (!document.hidden) root.toggleAttribute("data-beat", Boolean(on));
}, 900);

// alive.js puts #alive into the page while the app does not answer, or answers nobody.
const WHY = { out: "You are logged out.", other: "Somebody else is logged in." };
new MutationObserver(() => {
  const gone = document.querySelector("#alive");
  root.toggleAttribute("data-gone", Boolean(gone));
  q(".mo-gone").hidden = !gone;
  if (!gone) return;
  const since = props.value?.runs ? ` What is shown is of ${heard.toLocaleTimeString()}.` : "";
  const why = WHY[gone.dataset.state] ?? "The app is gone or was restarted.";
  const text = `${why}${since} Runs go on.`;
  if (q(".mo-gone").textContent !== text) q(".mo-gone").textContent = text;
}).observe(document.body, { childList: true });
