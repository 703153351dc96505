// Asks every few seconds whether the server is there, and whether what the page draws has changed
// (pulse.py): then the part that says whose it is, by data-pulse, hears of it and has itself drawn anew.
// Tells when the server is gone or was restarted: events of a page that an earlier server made
// lead nowhere, and what was generated is gone with its memory. Also when somebody has logged out in
// another tab. Rank needs none of this: it talks to routes that stay the same.
(() => {
  const EVERY_MS = 2000;
  const born = document.querySelector('meta[name="imgalign-server"]').content;
  const at = (path) => new URL(path, document.baseURI);
  let missed = 0;

  const STATES = {
    gone: { text: "The app does not respond. This page continues when it does." },
    restarted: {
      text: "The app was restarted. Reload this page to continue.",
      label: "Reload",
      act: () => location.reload(),
    },
    // In a tab of its own: what is half done here stays, and goes on after it.
    out: {
      text: "You are logged out. This page continues once you are logged in again.",
      label: "Log in",
      act: () => window.open(at("enter"), "_blank"),
    },
    other: {
      text: "Somebody is logged in now who may not see this page.",
      label: "To the Rank page",
      act: () => location.assign(at("./")),
    },
  };

  const banner = (state) => {
    let node = document.querySelector("#alive");
    if (node?.dataset.state === state) return;
    node?.remove();
    node = document.createElement("div");
    node.id = "alive";
    node.dataset.state = state;
    node.setAttribute("role", "alert");
    const { text, label, act } = STATES[state];
    node.append(document.createElement("p"));
    node.firstChild.textContent = text;
    if (act) {
      node.append(document.createElement("button"));
      node.lastChild.className = "btn btn-primary";
      node.lastChild.textContent = label;
      node.lastChild.addEventListener("click", act);
    }
    document.body.append(node);
  };

  const look = async () => {
    if (document.hidden || document.querySelector("#ranker")) return;
    const drawn = document.querySelector("[data-pulse]");
    let answer;
    let server;
    let mark;
    try {
      const asked = at(`api/alive${drawn ? `?of=${drawn.dataset.pulse}` : ""}`);
      answer = await fetch(asked, { signal: AbortSignal.timeout(10000), cache: "no-store" });
      if (answer.ok) ({ server, mark } = await answer.json());
      else if (![401, 403].includes(answer.status)) throw new Error(`status ${answer.status}`);
    } catch {
      missed += 1;
      if (missed > 1) banner("gone");
      return;
    }
    missed = 0;
    if (answer.status === 401) banner("out");
    else if (answer.status === 403) banner("other");
    else if (server !== born) banner("restarted");
    else {
      document.querySelector("#alive")?.remove();
      if (drawn && drawn.dataset.mark !== mark) {
        drawn.dataset.mark = mark;
        drawn.dispatchEvent(new Event("pulse"));
      }
    }
  };

  setInterval(look, EVERY_MS);
  document.addEventListener("visibilitychange", look);
})();
