// Has a file written by the app, waits until it is there, and takes it: a press on a button whose
// data-take is the address to ask at, within tools whose data-files is where the files are.
const askFor = async (path, method) => {
  let response;
  let answer;
  try {
    response = await fetch(new URL(path, document.baseURI), { method });
    answer = await response.json();
  } catch {
    throw new Error("The app cannot be reached; ask for the file when it is there.");
  }
  if (!response.ok) throw new Error(answer.error ?? `The app answered ${response.status}.`);
  return answer;
};
const waitFor = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

element.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-take]");
  if (!button) return;
  const tools = button.closest(".tools");
  const [said, wrong] = ["status", "alert"].map((role) => tools.querySelector(`[role=${role}]`));
  const buttons = element.querySelectorAll("button[data-take]"); // one file at a time
  buttons.forEach((each) => (each.disabled = true));
  wrong.hidden = true;
  said.textContent = `Writing ${tools.dataset.what ?? ""}${button.textContent} …`;
  try {
    const { file } = await askFor(button.dataset.take, "POST");
    const at = `${tools.dataset.files}/${file}`;
    let answer = await askFor(at, "GET");
    for (let seconds = 0.2; !answer.ready; seconds = Math.min(2 * seconds, 5)) {
      await waitFor(seconds);
      answer = await askFor(at, "GET");
    }
    const link = make("a");
    link.href = new URL(`${at}/content`, document.baseURI);
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
