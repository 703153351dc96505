// Sends a file of rankings to the app, and says what came in or why nothing did.
const root = element.querySelector(".drop");
const input = root.querySelector("input");
const said = root.querySelector(".drop-said");
const wrong = root.querySelector(".drop-wrong");

const send = async (file) => {
  said.textContent = `Bringing in ${file.name}`;
  wrong.hidden = true;
  input.disabled = true;
  try {
    await refuseUnreadable(file);
    const address = new URL(`api/people/rankings?name=${encodeURIComponent(file.name)}`, document.baseURI);
    const response = await fetch(address, { method: "POST", body: file });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error ?? `The app answered ${response.status}.`);
    said.textContent = answer.said;
    trigger("rankings_in");
  } catch (error) {
    said.textContent = "";
    wrong.textContent = error instanceof TypeError ? "The app cannot be reached; send the file when it is there." : error.message;
    wrong.hidden = false;
  }
  input.disabled = false;
  input.value = "";
};

input.addEventListener("change", () => input.files.length && send(input.files[0]));
root.querySelector("label").addEventListener("keydown", (event) => {
  if (["Enter", " "].includes(event.key)) input.click();
});
