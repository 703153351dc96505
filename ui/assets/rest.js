// What keeps judgements good: the guidelines of the project, and a word about a break after long work.
// Neither stands in the way: keys go on working, and nothing is sent or taken back.
const REST_AFTER_MS = 25 * 60000; // of looking at sets
const REST_MS = 5 * 60000; // without a judgement: a break, after which the count begins again

const worked = () => load(slot("worked"), { sum: 0, at: 0 });
const noteWork = (milliseconds) => {
  const { sum, at } = worked();
  const rested = Date.now() - at > REST_MS;
  save(slot("worked"), { sum: (rested ? 0 : sum) + milliseconds, at: Date.now() });
};
// At the next set, never within one: what is looked at does not move.
const suggestRest = () => {
  const { sum, at } = worked();
  const due = sum >= REST_AFTER_MS;
  q(".rk-rest").hidden = !due;
  if (!due) return;
  q(".rk-rest p").textContent =
    `You have ranked for ${Math.round(sum / 60000)} minutes. A short break keeps the eye fresh; all you sent is saved.`;
  save(slot("worked"), { sum: 0, at });
};
const goOn = () => {
  q(".rk-rest").hidden = true;
  arrange();
};

let guidelines = null; // null until the server has said them, "" where there are none
const read = () => (project ? `guidelines.${project}` : "guidelines"); // what was read, and where
const openGuidelines = () => {
  if (!guidelines) return;
  save(read(), guidelines);
  q(".rk-guide").showModal();
};
// They open by themselves once, and once more whenever a lead has changed them.
const showGuidelines = () => {
  if (guidelines === null) return loadGuidelines();
  const unseen = guidelines && load(read(), "") !== guidelines;
  if (unseen && root.dataset.state === "ranking" && !root.querySelector("dialog[open]")) openGuidelines();
};
// Each project may have its own.
let guidelinesOf; // the project whose guidelines are on their way
const loadGuidelines = async () => {
  const of = project;
  if (guidelinesOf === of) return;
  guidelinesOf = of;
  guidelines = null;
  const address = new URL("api/rank/guidelines", document.baseURI);
  if (of) address.searchParams.set("project", of);
  try {
    const response = await fetch(address);
    const given = response.ok && (await response.json());
    if (!given || of !== project) return; // another project was chosen meanwhile
    guidelines = given.text;
  } catch {
    return; // asked again with the next set
  } finally {
    if (guidelinesOf === of) guidelinesOf = undefined;
  }
  q(".rk-guide-text").textContent = guidelines;
  for (const node of root.querySelectorAll('[data-do="guide"], .rk-guide-row')) node.hidden = !guidelines;
  showGuidelines();
};
