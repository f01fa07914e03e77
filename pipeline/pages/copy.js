// Copies the text of an element and says so in another; where the browser refuses, the text is selected.
const copyText = async (element, said) => {
  "use strict";
  try {
    await navigator.clipboard.writeText(element.textContent);
    said.textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(element);
    said.textContent = document.execCommand("copy") ? "Copied." : "Selected: copy it with your keyboard.";
  }
};
