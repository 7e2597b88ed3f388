"use strict";
(() => {
  const search = document.getElementById("search");
  const packages = Array.from(document.querySelectorAll(".package"));
  const shown = document.getElementById("shown");
  const radios = document.querySelectorAll(".filter input[type=radio]");
  document.documentElement.classList.add("scripted");
  const look = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const only = document.querySelector(".filter input[type=radio]:checked").value;
    let count = 0;
    for (const one of packages) {
      one.words ??= one.textContent.toLowerCase();
      const fits = words.every((word) => one.words.includes(word));
      one.classList.toggle("off", !fits);
      if (fits && (!only || one.classList.contains(only))) count += 1;
    }
    shown.textContent = `${count.toLocaleString("en")} shown`;
  };
  let waiting = 0;
  search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(look, 120); });
  radios.forEach((radio) => radio.addEventListener("change", look));
  document.getElementById("unfold").addEventListener("click", () => {
    const visible = packages.filter((one) => one.checkVisibility());
    const open = !visible.every((one) => one.open);
    visible.forEach((one) => { one.open = open; });
  });
  const follow = () => {
    const one = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!one || !one.matches(".package")) return;
    if (getComputedStyle(one).display === "none") {
      search.value = "";
      document.getElementById("only-all").checked = true;
      look();
    }
    one.open = true;
    one.scrollIntoView();
  };
  addEventListener("hashchange", follow);
  look();
  follow();
})();
