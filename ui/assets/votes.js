// One's own votes, newest first, in pages. Choosing one takes it back as undo does: it comes up with
// its ranking as the draft, counts again once it is sent, and then the set that was left comes back.
const votesDialog = q(".rk-votes");
const votesList = q(".rk-votes-list");
const begins = [{ before: null, first: 1 }]; // where each page so far began; the last is on the screen
let voted = { votes: [], more: false };
let asking = 0; // number of the latest request: answers to older ones come too late

const clockTime = (at) => at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
const when = (at, now = new Date()) => {
  const days = Math.round((new Date(now).setHours(0, 0, 0, 0) - new Date(at).setHours(0, 0, 0, 0)) / 86400000);
  const day = ["Today", "Yesterday"][days] ?? at.toLocaleDateString([], { dateStyle: "medium" });
  return `${day}, ${clockTime(at)}`;
};

const verdictOf = ({ verdict, reason, ranking, candidates }) => {
  if (candidates.length === 1 && verdict !== "skipped") return verdict === "ranked" ? "Liked" : "Disliked";
  if (verdict === "all_bad") return "All bad";
  if (verdict === "skipped") return `Skipped: ${reason}`;
  return ranking.length === 1 ? "All equal" : "Ranked";
};
const spokenVote = (vote) => {
  const groups = vote.verdict === "ranked" && vote.ranking.length > 1 ? vote.ranking : [];
  const order = groups.map((group, rank) => `${ordinal(rank + 1)} ${group.map((p) => p + 1).join(" and ")}`);
  const what = order.length ? `${capital(Candidates[vote.samples].noun)}s: ${order.join(", ")}` : verdictOf(vote);
  return `${vote.prompt}. ${what}. ${when(new Date(vote.at))}. Change this vote`;
};

const votePicture = (vote, position) => {
  const node = make("span", "rk-vote-sample");
  node.append(Candidates[vote.samples].inList(vote.candidates[position]), make("span", "rk-number", position + 1));
  return node;
};
const voteOrder = (vote) => {
  const node = make("span", "rk-vote-order");
  const ranked = vote.verdict === "ranked";
  const groups = ranked ? vote.ranking : vote.candidates.map((_, position) => [position]);
  groups.forEach((group, rank) => {
    if (rank && ranked) node.append(make("span", "rk-vote-next", "›"));
    group.forEach((position, i) => {
      if (i) node.append(make("span", "rk-eq", "="));
      node.append(votePicture(vote, position));
    });
  });
  node.toggleAttribute("data-unranked", !ranked);
  return node;
};
const voteRow = (vote) => {
  const row = make("li", "");
  const button = make("button", "rk-vote");
  button.type = "button";
  button.dataset.vote = vote.key;
  button.dataset.samples = vote.samples;
  button.setAttribute("aria-label", spokenVote(vote));
  const prompt = make("span", "rk-vote-prompt", vote.prompt);
  prompt.dir = "auto";
  const at = make("time", "", when(new Date(vote.at)));
  at.dateTime = vote.at;
  const about = make("span", "rk-vote-about");
  about.append(make("b", "", verdictOf(vote)), at);
  button.append(prompt, voteOrder(vote), about);
  row.append(button);
  return row;
};

const voteButtons = () => Array.from(votesList.querySelectorAll(".rk-vote"));
const tellVotes = (text) => {
  q(".rk-votes-status").textContent = text;
};
const drawVotes = () => {
  const { first } = begins.at(-1);
  const count = voted.votes.length;
  votesList.replaceChildren(...voted.votes.map(voteRow));
  votesList.scrollTop = 0;
  q('[data-votes="newer"]').disabled = begins.length === 1;
  q('[data-votes="older"]').disabled = !voted.more;
  q(".rk-votes-nav").toggleAttribute("data-single", begins.length === 1 && !voted.more);
  if (count) tellVotes(count === 1 ? `Vote ${first}, newest first` : `Votes ${first} to ${first + count - 1}, newest first`);
  else tellVotes(begins.length > 1 ? "No older votes" : "None yet. What you submit appears here");
};

const loadVotes = async () => {
  const mine = (asking += 1);
  votesList.setAttribute("aria-busy", "true");
  try {
    const given = await call("votes", { annotator, project, before: begins.at(-1).before });
    if (mine !== asking) return;
    voted = given;
    drawVotes();
    (voteButtons()[0] ?? q("#rk-votes-title")).focus();
  } catch (error) {
    if (mine === asking) tellVotes(`${error.message} Close this list and open it again to retry.`);
  } finally {
    if (mine === asking) votesList.removeAttribute("aria-busy");
  }
};
const openVotes = () => {
  begins.length = 1;
  voted = { votes: [], more: false };
  votesList.replaceChildren();
  q(".rk-votes-nav").setAttribute("data-single", "");
  tellVotes("Loading…");
  if (!votesDialog.open) votesDialog.showModal();
  return loadVotes();
};
const turnVotes = {
  older: () => {
    if (!voted.more || votesList.ariaBusy === "true") return undefined;
    begins.push({ before: voted.votes.at(-1).key, first: begins.at(-1).first + voted.votes.length });
    return loadVotes();
  },
  newer: () => {
    if (begins.length === 1 || votesList.ariaBusy === "true") return undefined;
    begins.pop();
    return loadVotes();
  },
};

const correct = async (judged) => {
  if (busy) return;
  let back;
  try {
    back = await takeBack(judged);
  } catch (error) {
    tellVotes(error.message);
    return;
  }
  votesDialog.close();
  if (!(await next(false)) || item.item === back.item) return;
  // Another tab had taken it back before, and has judged it anew.
  saveDraft(back, null);
  complain("That vote was changed in another tab meanwhile. Choose it again from the list.", openVotes);
};

// What a key does while the list is open; whether it does anything.
const onVotesKey = (name) => {
  const buttons = voteButtons();
  const at = buttons.indexOf(document.activeElement);
  const step = { ArrowDown: at + 1, ArrowUp: at < 0 ? 0 : at - 1, Home: 0, End: buttons.length - 1 }[name];
  if (step !== undefined) buttons[Math.min(Math.max(step, 0), buttons.length - 1)]?.focus();
  else if (name === "h") votesDialog.close();
  else if (name === "ArrowRight" || name === "PageDown") turnVotes.older();
  else if (name === "ArrowLeft" || name === "PageUp") turnVotes.newer();
  else return false;
  return true;
};
