// Before anything is painted: the theme that was chosen here, so that the page never flashes in the other one.
(() => {
  const chosen = localStorage.getItem('farthing-theme');
  if (chosen === 'dark' || chosen === 'light') document.documentElement.dataset.theme = chosen;
})();
