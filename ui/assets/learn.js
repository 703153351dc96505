// Draws what the server says: reward models, and of the chosen one how good it is and the pairs of
// which it is surest. The value is replaced when something has changed; what the person opened stays open.
const root = element.querySelector(".le");
const q = (selector) => root.querySelector(selector);
const stored = remembered("imgalign.learn.fit");
const drawFits = listbox(q(".le-list"), "fit");
const STATES = { fitting: "Fitting", fitted: "Fitted", stopped: "Stopped", failed: "Failed" };

const percent = (value) => `${(100 * value).toFixed(1)} %`;
const at = (path) => new URL(`api/rewards/${path}`, document.baseURI).href;

const chip = (fit, current) => {
  const node = make("button", "le-chip");
  node.type = "button";
  node.dataset.fit = fit.name;
  node.setAttribute("role", "option");
  node.setAttribute("aria-selected", fit.name === current);
  const said = fit.accuracy === null ? STATES[fit.state] : `${percent(fit.accuracy)} of pairs`;
  node.append(make("b", "", fit.name), make("small", "", said));
  return node;
};

const bar = ({ name, value, interval, own }) => {
  const row = make("div", "le-row");
  row.setAttribute("role", "row");
  row.toggleAttribute("data-own", own);
  const track = make("span", "le-track");
  const fill = make("i");
  fill.style.width = `${100 * value}%`;
  track.append(fill);
  if (interval) {
    const range = make("u");
    range.style.left = `${100 * interval[0]}%`;
    range.style.width = `${100 * (interval[1] - interval[0])}%`;
    track.append(range);
    track.title = `95 % interval: ${percent(interval[0])} to ${percent(interval[1])}`;
  }
  track.setAttribute("role", "cell");
  const label = make("span", "", name);
  label.setAttribute("role", "rowheader");
  const number = make("span", "", percent(value));
  number.setAttribute("role", "cell");
  row.append(label, track, number);
  return row;
};

const sample = (detail, id, caption, alt) => {
  const figure = make("figure");
  if (detail.samples === "texts") {
    figure.append(make("blockquote", "", id));
  } else {
    const image = make("img");
    image.loading = "lazy";
    image.alt = alt;
    image.src = at(`${encodeURIComponent(detail.name)}/images/${id}`);
    figure.append(image);
  }
  figure.append(make("figcaption", "", caption));
  return figure;
};

const pair = (detail, { prompt, better, worse, probability }) => {
  const node = make("article", "le-pair");
  const two = make("div");
  two.append(
    sample(detail, better, "people's choice", `Preferred by people, for: ${prompt}`),
    sample(detail, worse, "the other", `Not preferred, for: ${prompt}`),
  );
  const said = `The reward gives people's choice ${(100 * probability).toFixed(0)} %.`;
  node.append(make("p", "", prompt), two, make("small", "", said));
  return node;
};

const refresh = () => {
  const value = props.value;
  if (!value) return;
  root.removeAttribute("data-wait");
  root.toggleAttribute("data-empty", !value.detail);
  if (!value.detail) {
    const hint = q(".le-hint");
    hint.replaceChildren();
    if (value.judged) {
      hint.append(
        make("span", "for-admins", "Choose which rankings to learn from, then press Fit. It takes a few minutes."),
        make("span", "for-leads", "An admin fits the first one; what it is worth is shown here."),
      );
    } else {
      hint.textContent = "There are no rankings to learn from yet. ";
      const link = make("a", "", "Rank some images first.");
      link.href = new URL("./", document.baseURI).href;
      hint.append(link);
    }
    return;
  }
  const detail = value.detail;
  if (changed("list", [value.fits, detail.name])) {
    drawFits(value.fits.map((fit) => chip(fit, detail.name)));
  }
  if (seen.fit !== detail.name) root.querySelectorAll("details").forEach((d) => (d.open = false));
  if (seen.fit !== detail.name || changed("state", detail.state)) {
    q(".le-log").open = detail.state === "failed";
  }
  seen.fit = detail.name;
  q(".le-fit").dataset.state = detail.state;
  q(".le-fit h3").textContent = detail.name;
  q(".le-state").textContent = STATES[detail.state];
  q('[data-do="stop"]').hidden = !detail.stoppable;
  q('[data-do="forget"]').hidden = !["stopped", "failed"].includes(detail.state);
  q(".le-buttons a").hidden = detail.state !== "fitted";
  q(".le-bar").hidden = detail.state !== "fitting";
  q(".le-bar i").style.width = `${100 * (detail.share ?? 0)}%`;
  q(".le-bar").setAttribute("aria-valuenow", Math.round(100 * (detail.share ?? 0)));
  const verb = detail.state === "fitting" ? "Learning" : "Learned";
  const from = detail.learned_from && `${verb} from the rankings of ${detail.learned_from}. `;
  const where = detail.state === "fitted" ? `In ${detail.folder}.` : "";
  q(".le-said").textContent = `${from}${where} ${detail.message}`.trim();
  const report = detail.bars.length > 0;
  q(".le-report").hidden = !report;
  if (report && changed("report", [detail.name, detail.verdict, detail.bars])) {
    q(".le-verdict").textContent = detail.verdict;
    q(".le-bars").replaceChildren(...detail.bars.map(bar));
    q(".le-facts").replaceChildren(...detail.facts.map((fact) => make("li", "", fact)));
    for (const kind of ["disagreements", "agreements"]) {
      const box = q(`[data-kind="${kind}"]`);
      box.hidden = !detail[kind].length;
      box.querySelector(":scope > div").replaceChildren(...detail[kind].map((each) => pair(detail, each)));
    }
    q(".le-picture").src = at(`${encodeURIComponent(detail.name)}/picture`);
  }
  if (changed("log", detail.log)) {
    q("pre").textContent = detail.log || "Nothing printed by a process of this app.";
    q("pre").scrollTop = q("pre").scrollHeight;
  }
};

root.addEventListener("click", (event) => {
  const chosen = event.target.closest("[data-fit]");
  const button = event.target.closest("[data-do]");
  if (chosen) {
    stored.set(chosen.dataset.fit);
    trigger("fit_select", { fit: chosen.dataset.fit });
  } else if (button) {
    // Named in full: gradio looks for the names of events in this text.
    const event = { stop: "fit_stop", forget: "fit_forget" }[button.dataset.do];
    trigger(event, { fit: props.value.detail.name });
  }
});

watch("value", refresh);
root.addEventListener("pulse", () => trigger("moved")); // alive.js says so
refresh();
if (stored.get()) trigger("fit_select", { fit: stored.get() });
