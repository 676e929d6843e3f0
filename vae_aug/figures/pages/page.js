"use strict";
// What all pages share: data, parts by their ids, and a state that lives in the controls of the form
// and, where it is not the usual one, in the address: page.html#case=3&theme=dark.

const data = JSON.parse(document.getElementById("data").textContent);
const form = document.forms.controls;
const parts = Object.fromEntries([...document.querySelectorAll("[id]")].map((part) => [part.id, part]));

// Texts become text nodes, never HTML: what comes from records is not to be trusted.
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function find(name) {
  return [...form.querySelectorAll(`[name="${name}"]`)];
}

function read(name) {
  const controls = find(name);
  if (controls[0].type === "checkbox") return controls[0].checked ? "on" : "off";
  if (controls[0].type === "radio") return controls.find((control) => control.checked).value;
  return controls[0].value;
}

// A value that a control does not have changes nothing.
function write(name, value) {
  for (const control of find(name)) {
    if (control.type === "checkbox") control.checked = value !== "off";
    else if (control.type === "radio") control.checked ||= control.value === String(value);
    else if (!control.options || [...control.options].some((option) => option.value === value)) control.value = value;
  }
}

function readAddress(names, defaults) {
  const wanted = new URLSearchParams(location.hash.slice(1));
  for (const name of names) write(name, wanted.get(name) ?? defaults[name]);
}

// Later, since browsers count how often an address changes.
function writeAddress(names, defaults) {
  clearTimeout(writeAddress.timer);
  writeAddress.timer = setTimeout(() => {
    const values = names.map((name) => [name, read(name)]).filter(([name, value]) => value !== defaults[name]);
    history.replaceState(null, "", `#${new URLSearchParams(values)}`);
  }, 250);
}

function showTheme() {
  const chosen = read("theme"), root = document.documentElement;
  root.dataset.theme = chosen;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  parts.theme.ariaPressed = String((chosen || system) === "dark");
}

function switchTheme() {
  write("theme", parts.theme.ariaPressed === "true" ? "light" : "dark");
  showTheme();
}
