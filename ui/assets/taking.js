// Has a file of rankings written, waits until it is there, and takes it.
const get = async (path, method) => {
  let response;
  let answer;
  try {
    response = await fetch(new URL(`api/people/files${path}`, document.baseURI), { method });
    answer = await response.json();
  } catch {
    throw new Error("The app cannot be reached; ask for the file when it is there.");
  }
  if (!response.ok) throw new Error(answer.error ?? `The app answered ${response.status}.`);
  return answer;
};
const wait = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

element.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-kind]");
  if (!button) return;
  const tools = button.closest(".tools");
  const [said, wrong] = ["status", "alert"].map((role) => tools.querySelector(`[role=${role}]`));
  const buttons = tools.querySelectorAll("button");
  buttons.forEach((each) => (each.disabled = true));
  wrong.hidden = true;
  said.textContent = `Writing ${button.textContent}`;
  try {
    const { file } = await get(`?${new URLSearchParams({ kind: button.dataset.kind, project: tools.dataset.project })}`, "POST");
    let answer = await get(`/${file}`, "GET");
    for (let seconds = 0.2; !answer.ready; seconds = Math.min(2 * seconds, 5)) {
      await wait(seconds);
      answer = await get(`/${file}`, "GET");
    }
    const link = document.createElement("a");
    link.href = new URL(`api/people/files/${file}/content`, document.baseURI);
    link.download = "";
    link.click();
    said.textContent = `${button.textContent}: ${answer.said}`;
  } catch (error) {
    said.textContent = "";
    wrong.textContent = error.message;
    wrong.hidden = false;
  }
  buttons.forEach((each) => (each.disabled = false));
});
