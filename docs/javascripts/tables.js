// On a phone a row of a table is a block (pages.css), in which each cell but the first needs the name of its column.
for (const table of document.querySelectorAll(".md-typeset table:not([class])")) {
  const columns = [...table.querySelectorAll("thead th")].map(cell => cell.textContent.trim())
  if (columns.length > 2)
    for (const row of table.tBodies[0]?.rows ?? [])
      columns.forEach((name, at) => {
        if (at && name && row.cells[at]) row.cells[at].dataset.column = name
      })
}
