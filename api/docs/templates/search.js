"use strict";
const box = document.getElementById("search");
const entries = [...document.querySelectorAll("details")];
const sections = [...document.querySelectorAll("section")];

function search() {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const entry of entries) entry.hidden = !words.every((word) => entry.dataset.search.includes(word));
  for (const section of sections) section.hidden = !section.querySelector("details:not([hidden])");
  const shown = entries.filter((entry) => !entry.hidden).length;
  document.getElementById("count").textContent = words.length ? `${shown} endpoints` : "";
}

function openLinked() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!(target instanceof HTMLDetailsElement)) return;
  box.value = ""; // the search may hide the target
  search();
  target.open = true;
  target.scrollIntoView();
}

box.addEventListener("input", search);
window.addEventListener("hashchange", openLinked);
openLinked();
