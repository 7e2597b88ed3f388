"use strict";
(() => {
  const search = document.getElementById("search");
  const packages = Array.from(document.querySelectorAll(".package"));
  const shown = document.getElementById("shown");
  const radios = document.querySelectorAll(".filter input[type=radio]");
  document.documentElement.classList.add("scripted");
  const applyFilter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const status = document.querySelector(".filter input[type=radio]:checked").value;
    let count = 0;
    for (const section of packages) {
      section.searchText ??= section.textContent.toLowerCase();
      const matches = words.every((word) => section.searchText.includes(word));
      section.classList.toggle("no-match", !matches);
      if (matches && (!status || section.classList.contains(status))) count += 1;
    }
    shown.textContent = `${count.toLocaleString("en")} shown`;
  };
  let timer = 0;
  search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(applyFilter, 120); });
  radios.forEach((radio) => radio.addEventListener("change", applyFilter));
  document.getElementById("toggle-all").addEventListener("click", () => {
    const visible = packages.filter((section) => section.checkVisibility());
    const open = !visible.every((section) => section.open);
    visible.forEach((section) => { section.open = open; });
  });
  const showLinked = () => {
    const section = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!section || !section.matches(".package")) return;
    if (getComputedStyle(section).display === "none") {
      search.value = "";
      document.getElementById("only-all").checked = true;
      applyFilter();
    }
    section.open = true;
    section.scrollIntoView();
  };
  addEventListener("hashchange", showLinked);
  applyFilter();
  showLinked();
})();
