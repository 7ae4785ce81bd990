/** A fresh copy of the element inside `<template id=...>`. */
export function copy(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}
