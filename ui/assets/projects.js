// Which project is ranked: a link names one, else the one that was chosen last in this browser. What
// is half done stays, each set with its own draft.
const projectBox = q(".rk-project");
const projectList = q(".rk-project select");
let offered = []; // {name, done, left} of each project

const firstProject = () => {
  const linked = new URLSearchParams(location.search).get("project");
  if (linked) save("project", linked);
  return linked || load("project", null);
};
// What is not there any more is forgotten; whether there was anything.
const forgetProject = () => {
  if (project === null) return false;
  project = null;
  save("project", null);
  loadGuidelines();
  return true;
};

const drawProjects = (current) => {
  const open = offered.filter(({ name, left }) => left || name === current);
  projectBox.hidden = open.length < 2;
  projectList.replaceChildren(
    ...open.map(({ name, left }) => {
      const option = make("option", "", `${name} (${left} left)`);
      option.value = name;
      option.selected = name === current;
      return option;
    }),
  );
};
// Counting takes a while in a large store, and nobody waits for it.
const askProjects = async () => {
  try {
    offered = (await call("projects", { annotator })).projects;
    return true;
  } catch {
    return false; // it is asked again with the next page, and one can rank without
  }
};
let listed = null; // the project for which the list was drawn
const showProjects = async (current) => {
  if (listed === current) return;
  listed = current;
  if (await askProjects()) drawProjects(current);
};
// Where nothing is left: what there is elsewhere.
const offerProjects = async () => {
  const box = q(".rk-others");
  const current = item.project;
  if (!(await askProjects()) || item?.project !== current) return;
  drawProjects(current);
  const others = offered.filter(({ name, left }) => left && name !== current);
  box.hidden = !others.length;
  box.replaceChildren(
    ...others.map(({ name, left }) => {
      const button = make("button", "rk-btn rk-primary", `Go to ${name}: ${left} left`);
      button.type = "button";
      button.dataset.project = name;
      return button;
    }),
  );
};

// What is on its way to the server is of the set on the screen: the project that was chosen last comes
// after it. Where it is not saved, the set and its message stay, and the list says whose they are.
let wanted = null;
const goTo = async (name) => {
  wanted = name;
  const waited = Boolean(busy);
  while (busy) await new Promise((done) => setTimeout(done, 50));
  if (wanted !== name) return;
  wanted = null;
  if (waited && retry) projectList.value = project ?? item?.project;
  if (name === project || (waited && retry)) return;
  if (session) persist();
  project = name;
  save("project", name);
  if (location.search) history.replaceState(null, "", location.pathname);
  item = null;
  session = null;
  clock(false);
  show("loading");
  loadGuidelines();
  await next();
  say(`Project ${name}`);
};
projectList.addEventListener("change", () => {
  projectList.blur();
  goTo(projectList.value);
});
