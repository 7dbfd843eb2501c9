// Sorts with the comparisons that V8 makes, in V8's order, so that a comparator which is not consistent (one that returns a
// boolean, say) gives the order that it gives in Node: TimSort for arrays, a merge sort for typed arrays.
(() => {
  "use strict";
  const { apply } = Reflect;
  const { defineProperty, getPrototypeOf, getOwnPropertyDescriptor } = Object;
  const Mistake = TypeError;
  const [ToObject, ToNumber, min, floor, slice] = [Object, Number, Math.min, Math.floor, Array.prototype.slice];
  const MIN_GALLOP = 7;

  // Every test of a comparator's result is one for less than zero, after a conversion to a number: NaN counts as 0, as in V8.
  // The loops destructure nothing, for they are hot.

  function checkComparator(f) {
    if (f !== undefined && typeof f !== "function") {
      throw new Mistake("The comparison function must be either a function or undefined");
    }
  }

  function copy(from, start, to, target, count) {
    if (from === to && start < target) for (let i = count - 1; i >= 0; i--) to[target + i] = from[start + i];
    else for (let i = 0; i < count; i++) to[target + i] = from[start + i];
  }

  // The length of the run that begins at `low`; a descending one is reversed.
  function makeRun(a, low, high, order) {
    if (low + 1 === high) return 1;
    let length = 2;
    const descending = +order(a[low + 1], a[low]) < 0;
    for (let i = low + 2; i < high && +order(a[i], a[i - 1]) < 0 === descending; i++) length++;
    if (descending) for (let i = low, j = low + length - 1; i < j; i++, j--) [a[i], a[j]] = [a[j], a[i]];
    return length;
  }

  function insertionSort(a, low, start, high, order) {
    for (start = low === start ? start + 1 : start; start < high; start++) {
      const pivot = a[start];
      let left = low;
      let right = start;
      while (left < right) {
        const middle = left + ((right - left) >> 1);
        if (+order(pivot, a[middle]) < 0) right = middle;
        else left = middle + 1;
      }
      for (let i = start; i > left; i--) a[i] = a[i - 1];
      a[left] = pivot;
    }
  }

  // The place of `key` in the sorted part of `a` of that length at `base`: before the values equal to it if `leftmost`, else
  // behind them. The search begins at `hint` and doubles its steps.
  function gallop(a, key, base, length, hint, order, leftmost) {
    const isBefore = leftmost ? (i) => +order(a[base + i], key) < 0 : (i) => !(+order(key, a[base + i]) < 0);
    let [last, offset] = [0, 1];
    if (isBefore(hint)) {
      const limit = length - hint;
      while (offset < limit && isBefore(hint + offset)) [last, offset] = [offset, 2 * offset + 1];
      [last, offset] = [hint + last, hint + min(offset, limit)];
    } else {
      const limit = hint + 1;
      while (offset < limit && !isBefore(hint - offset)) [last, offset] = [offset, 2 * offset + 1];
      [last, offset] = [hint - min(offset, limit), hint - last];
    }
    last++;
    while (last < offset) {
      const middle = last + ((offset - last) >> 1);
      if (isBefore(middle)) last = middle + 1;
      else offset = middle;
    }
    return offset;
  }

  // Merges two neighbouring runs from their beginning; `a` is the shorter one.
  function mergeLow(state, baseA, lengthA, baseB, lengthB) {
    const { work, order } = state;
    const temp = [];
    copy(work, baseA, temp, 0, lengthA);
    let [target, left, right] = [baseA, 0, baseB];
    const takeLeft = () => void (work[target++] = temp[left++]);
    const takeRight = () => void (work[target++] = work[right++]);
    const finish = () => copy(temp, left, work, target, lengthA);
    const copyRight = () => {
      copy(work, right, work, target, lengthB);
      work[target + lengthB] = temp[left];
    };
    takeRight();
    if (--lengthB === 0) return finish();
    if (lengthA === 1) return copyRight();
    let { minGallop } = state;
    for (;;) {
      let [winsA, winsB] = [0, 0];
      for (;;) {
        if (+order(work[right], temp[left]) < 0) {
          work[target++] = work[right++];
          winsA = 0;
          winsB++;
          if (--lengthB === 0) return finish();
          if (winsB >= minGallop) break;
        } else {
          work[target++] = temp[left++];
          winsA++;
          winsB = 0;
          if (--lengthA === 1) return copyRight();
          if (winsA >= minGallop) break;
        }
      }
      minGallop++;
      let first = true;
      while (winsA >= MIN_GALLOP || winsB >= MIN_GALLOP || first) {
        first = false;
        minGallop = minGallop > 2 ? minGallop - 1 : 1;
        state.minGallop = minGallop;
        winsA = gallop(temp, work[right], left, lengthA, 0, order, false);
        if (winsA > 0) {
          copy(temp, left, work, target, winsA);
          [target, left, lengthA] = [target + winsA, left + winsA, lengthA - winsA];
          if (lengthA === 1) return copyRight();
          if (lengthA === 0) return finish();
        }
        takeRight();
        if (--lengthB === 0) return finish();
        winsB = gallop(work, temp[left], right, lengthB, 0, order, true);
        if (winsB > 0) {
          copy(work, right, work, target, winsB);
          [target, right, lengthB] = [target + winsB, right + winsB, lengthB - winsB];
          if (lengthB === 0) return finish();
        }
        takeLeft();
        if (--lengthA === 1) return copyRight();
      }
      state.minGallop = ++minGallop;
    }
  }

  // Merges two neighbouring runs from their end; `b` is the shorter one.
  function mergeHigh(state, baseA, lengthA, baseB, lengthB) {
    const { work, order } = state;
    const temp = [];
    copy(work, baseB, temp, 0, lengthB);
    let [target, left, right] = [baseB + lengthB - 1, baseA + lengthA - 1, lengthB - 1];
    const takeLeft = () => void (work[target--] = work[left--]);
    const takeRight = () => void (work[target--] = temp[right--]);
    const finish = () => copy(temp, 0, work, target - lengthB + 1, lengthB);
    const copyLeft = () => {
      copy(work, left - lengthA + 1, work, target - lengthA + 1, lengthA);
      work[target - lengthA] = temp[right];
    };
    takeLeft();
    if (--lengthA === 0) return finish();
    if (lengthB === 1) return copyLeft();
    let { minGallop } = state;
    for (;;) {
      let [winsA, winsB] = [0, 0];
      for (;;) {
        if (+order(temp[right], work[left]) < 0) {
          work[target--] = work[left--];
          winsA++;
          winsB = 0;
          if (--lengthA === 0) return finish();
          if (winsA >= minGallop) break;
        } else {
          work[target--] = temp[right--];
          winsA = 0;
          winsB++;
          if (--lengthB === 1) return copyLeft();
          if (winsB >= minGallop) break;
        }
      }
      minGallop++;
      let first = true;
      while (winsA >= MIN_GALLOP || winsB >= MIN_GALLOP || first) {
        first = false;
        minGallop = minGallop > 2 ? minGallop - 1 : 1;
        state.minGallop = minGallop;
        winsA = lengthA - gallop(work, temp[right], baseA, lengthA, lengthA - 1, order, false);
        if (winsA > 0) {
          [target, left, lengthA] = [target - winsA, left - winsA, lengthA - winsA];
          copy(work, left + 1, work, target + 1, winsA);
          if (lengthA === 0) return finish();
        }
        takeRight();
        if (--lengthB === 1) return copyLeft();
        winsB = lengthB - gallop(temp, work[left], 0, lengthB, lengthB - 1, order, true);
        if (winsB > 0) {
          [target, right, lengthB] = [target - winsB, right - winsB, lengthB - winsB];
          copy(temp, right + 1, work, target + 1, winsB);
          if (lengthB === 1) return copyLeft();
          if (lengthB === 0) return finish();
        }
        takeLeft();
        if (--lengthA === 0) return finish();
      }
      state.minGallop = ++minGallop;
    }
  }

  function mergeAt(state, i) {
    const { work, runs, order } = state;
    const [a, b] = [runs[i], runs[i + 1]];
    runs[i] = { base: a.base, length: a.length + b.length };
    if (i === runs.length - 3) runs[i + 1] = runs[i + 2];
    runs.length--;
    const skipped = gallop(work, work[b.base], a.base, a.length, 0, order, false);
    const [baseA, lengthA] = [a.base + skipped, a.length - skipped];
    if (lengthA === 0) return;
    const lengthB = gallop(work, work[baseA + lengthA - 1], b.base, b.length, b.length - 1, order, true);
    if (lengthB === 0) return;
    (lengthA <= lengthB ? mergeLow : mergeHigh)(state, baseA, lengthA, b.base, lengthB);
  }

  function timSort(work, order) {
    const state = { work, order, runs: [], minGallop: MIN_GALLOP };
    const { runs } = state;
    const length = (i) => runs[i].length;
    const established = (n) => n < 2 || length(n - 2) > length(n - 1) + length(n);
    let [n, odd, low, remaining] = [work.length, 0, 0, work.length];
    for (; n >= 64; n >>= 1) odd |= n & 1;
    const minRun = n + odd;
    while (remaining > 0) {
      let run = makeRun(work, low, low + remaining, order);
      if (run < minRun) {
        const forced = min(minRun, remaining);
        insertionSort(work, low, low + run, low + forced, order);
        run = forced;
      }
      runs[runs.length] = { base: low, length: run };
      while (runs.length > 1) {
        let i = runs.length - 2;
        if (!established(i + 1) || !established(i)) {
          if (length(i - 1) < length(i + 1)) i--;
        } else if (length(i) > length(i + 1)) break;
        mergeAt(state, i);
      }
      [low, remaining] = [low + run, remaining - run];
    }
    while (runs.length > 1) {
      let i = runs.length - 2;
      if (i > 0 && length(i - 1) < length(i + 1)) i--;
      mergeAt(state, i);
    }
  }

  // V8's merge sort of typed arrays: sorts `from` to `to` of `source`, which `target` equals at first, into `target`.
  function mergeSort(source, from, to, target, order) {
    const middle = from + ((to - from) >> 1);
    if (middle - from > 1) mergeSort(target, from, middle, source, order);
    if (to - middle > 1) mergeSort(target, middle, to, source, order);
    let [left, right] = [from, middle];
    for (let i = from; i < to; i++) {
      const takeLeft = left < middle && (right >= to || !(+order(source[left], source[right]) > 0));
      target[i] = takeLeft ? source[left++] : source[right++];
    }
  }

  function replace(prototype, name, wrap) {
    const native = prototype[name];
    const f = wrap((self, ...args) => apply(native, self, args));
    defineProperty(f, "name", { value: name, configurable: true });
    defineProperty(prototype, name, { value: f, writable: true, configurable: true, enumerable: false });
  }

  // Returns the values that `array` holds, sorted, and the number of those that are undefined.
  function sortInto(array, length, f) {
    const work = [];
    let missing = 0;
    for (let i = 0; i < length; i++) {
      if (!(i in array)) continue;
      const value = array[i];
      if (value === undefined) missing++;
      else work[work.length] = value;
    }
    if (work.length > 1) timSort(work, f);
    return { work, missing };
  }

  replace(Array.prototype, "sort", (native) => ({
    sort(comparator) {
      checkComparator(comparator);
      if (comparator === undefined || this === undefined || this === null) return native(this, comparator);
      const array = ToObject(this);
      const length = min(floor(ToNumber(array.length)) || 0, Number.MAX_SAFE_INTEGER);
      if (length < 2) return array;
      const { work, missing } = sortInto(array, length, comparator);
      for (let i = 0; i < work.length; i++) array[i] = work[i];
      for (let i = 0; i < missing; i++) array[work.length + i] = undefined;
      for (let i = work.length + missing; i < length; i++) delete array[i];
      return array;
    },
  }).sort);

  replace(Array.prototype, "toSorted", (native) => ({
    toSorted(comparator) {
      checkComparator(comparator);
      if (comparator === undefined || this === undefined || this === null) return native(this, comparator);
      // Holes are read as undefined.
      const copied = apply(slice, this, []);
      const { work } = sortInto(copied, copied.length, comparator);
      for (let i = work.length; i < copied.length; i++) work[i] = undefined;
      return work;
    },
  }).toSorted);

  const typed = getPrototypeOf(Int8Array.prototype);
  const lengthOf = getOwnPropertyDescriptor(typed, "length").get;
  for (const name of ["sort", "toSorted"]) {
    replace(typed, name, (native) => ({
      [name](comparator) {
        checkComparator(comparator);
        if (comparator === undefined) return native(this);
        const length = apply(lengthOf, this, []);
        const result = name === "sort" ? this : native(this);
        const [source, target] = [[], []];
        for (let i = 0; i < length; i++) source[i] = target[i] = this[i];
        if (length > 1) mergeSort(source, 0, length, target, comparator);
        for (let i = 0; i < length; i++) result[i] = target[i];
        return result;
      },
    })[name]);
  }
})()
