// Sends the file of a LoRA, and says what it is called or why it is not kept; lists those that are
// there, each with a button that removes it when it is pressed twice.
const root = element.querySelector(".drop");
const input = root.querySelector("input");
const said = root.querySelector(".drop-said");
const wrong = root.querySelector(".drop-wrong");
const list = root.querySelector(".kept");

const complain = (text) => {
  wrong.textContent = text;
  wrong.hidden = !text;
};

const send = async (file) => {
  if (input.disabled || !file) return;
  said.textContent = `Sending ${file.name}, and holding it against the model`;
  complain("");
  input.disabled = true;
  try {
    await refuseUnreadable(file);
    const address = new URL(`api/loras?name=${encodeURIComponent(file.name)}`, document.baseURI);
    const response = await fetch(address, { method: "POST", body: file });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error ?? `The app answered ${response.status}.`);
    said.textContent = `${answer.name} can be chosen above.`;
    trigger("lora_sent", { name: answer.name });
  } catch (error) {
    said.textContent = "";
    const away = error instanceof TypeError || error instanceof SyntaxError;
    complain(away ? "The app cannot be reached; send the file when it is there." : error.message);
  }
  input.disabled = false;
  input.value = "";
};

const row = (name) => {
  const item = make("li", "", name);
  const button = make("button", "btn", "Remove");
  button.type = "button";
  button.setAttribute("aria-label", `Remove ${name}`);
  button.addEventListener("click", () => {
    if (button.dataset.sure) {
      button.disabled = true;
      said.textContent = "";
      trigger("lora_removed", { name });
      return;
    }
    button.dataset.sure = "yes";
    button.textContent = "Remove for good";
    button.setAttribute("aria-label", `Remove ${name} for good`);
  });
  item.append(button);
  return item;
};

const draw = () => {
  const names = props.value?.names ?? [];
  list.replaceChildren(...names.map(row));
  list.hidden = !names.length;
  complain(props.value?.wrong ?? "");
};

input.addEventListener("change", () => send(input.files[0]));
root.querySelector("label").addEventListener("keydown", (event) => {
  if (["Enter", " "].includes(event.key)) input.click();
});
root.addEventListener("dragover", (event) => {
  event.preventDefault();
  root.toggleAttribute("data-over", true);
});
root.addEventListener("dragleave", () => root.removeAttribute("data-over"));
root.addEventListener("drop", (event) => {
  event.preventDefault();
  root.removeAttribute("data-over");
  send(event.dataTransfer.files[0]);
});
watch("value", draw);
draw();
