/** The few functions of numpy that the preparation needs, with numpy's conventions. */

export type Numbers = ArrayLike<number>;

/** Of rotations, each of all pairs of columns; six are usual. */
const MOST_SWEEPS = 60;

/** Return the index at which `value` would be inserted into ascending `values`. */
export function searchSorted(values: Numbers, value: number, side: "left" | "right" = "left"): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < value || (side === "right" && values[middle] === value)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Interpolate linearly between ascending `x`; beyond the ends the end values hold. */
export function interpolate(at: number, x: Numbers, y: Numbers): number {
  const last = x.length - 1;
  if (Number.isNaN(at)) return NaN;
  if (at <= x[0]) return y[0];
  if (at >= x[last]) return y[last];
  const left = searchSorted(x, at, "right") - 1;
  return y[left] + ((y[left + 1] - y[left]) / (x[left + 1] - x[left])) * (at - x[left]);
}

export function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}

/** Round halves to the even neighbour. */
export function roundHalfEven(value: number): number {
  const down = Math.floor(value);
  const rest = value - down;
  if (rest !== 0.5) return Math.round(value);
  return down % 2 === 0 ? down : down + 1;
}

/** Return the median, the mean of the middle two of an even number of values; NaN of none. */
export function median(values: Numbers): number {
  const ordered = Float64Array.from(values).sort();
  const n = ordered.length;
  return n === 0 ? NaN : (ordered[(n - 1) >> 1] + ordered[n >> 1]) / 2;
}

/** Return a quantile by nearest rank, leaving NaN out; NaN without values. */
export function nearestRank(values: Numbers, fraction: number): number {
  const ordered = Float64Array.from(values)
    .filter((value) => !Number.isNaN(value))
    .sort();
  return ordered.length === 0 ? NaN : ordered[roundHalfEven(fraction * (ordered.length - 1))];
}

/** Return a quantile, interpolated between ranks. */
export function quantile(values: Numbers, fraction: number): number {
  const ordered = Float64Array.from(values).sort();
  const rank = fraction * (ordered.length - 1);
  const below = Math.floor(rank);
  return ordered[below] + (rank - below) * ((ordered[below + 1] ?? ordered[below]) - ordered[below]);
}

export function differences(values: Numbers): Float64Array {
  return Float64Array.from({ length: Math.max(values.length - 1, 0) }, (_, i) => values[i + 1] - values[i]);
}

export function sum(values: Numbers): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i];
  return total;
}

/** Evaluate a Chebyshev series (Clenshaw's recurrence). */
export function chebyshev(x: number, coefficients: Numbers): number {
  let b1 = 0;
  let b2 = 0;
  for (let k = coefficients.length - 1; k > 0; k--) [b1, b2] = [coefficients[k] + 2 * x * b1 - b2, b1];
  return coefficients[0] + x * b1 - b2;
}

/** Evaluate a Legendre series (Clenshaw's recurrence). */
export function legendre(x: number, coefficients: Numbers): number {
  let b1 = 0;
  let b2 = 0;
  for (let k = coefficients.length - 1; k > 0; k--)
    [b1, b2] = [coefficients[k] + ((2 * k + 1) / (k + 1)) * x * b1 - ((k + 1) / (k + 2)) * b2, b1];
  return coefficients[0] + x * b1 - 0.5 * b2;
}

/**
 * Solve a linear least-squares problem by Householder reflections; of several solutions the smallest, as numpy.
 *
 * @param rows Matrix, shape (m, n), m >= n; overwritten.
 * @param target Right-hand side, shape (m,); overwritten.
 */
export function leastSquares(rows: Float64Array[], target: Float64Array): Float64Array {
  const n = rows[0].length;
  const m = rows.length;
  for (let k = 0; k < n; k++) {
    let norm = 0;
    for (let i = k; i < m; i++) norm = Math.hypot(norm, rows[i][k]);
    if (norm === 0) continue;
    const pivot = rows[k][k] > 0 ? -norm : norm;
    const reflector = Float64Array.from({ length: m - k }, (_, i) => rows[k + i][k]);
    reflector[0] -= pivot;
    const square = sum(reflector.map((v) => v * v));
    const reflect = (get: (i: number) => number, set: (i: number, value: number) => void) => {
      let dot = 0;
      for (let i = k; i < m; i++) dot += reflector[i - k] * get(i);
      for (let i = k; i < m; i++) set(i, get(i) - ((2 * dot) / square) * reflector[i - k]);
    };
    for (let j = k; j < n; j++)
      reflect(
        (i) => rows[i][j],
        (i, value) => (rows[i][j] = value),
      );
    reflect(
      (i) => target[i],
      (i, value) => (target[i] = value),
    );
  }
  const triangle = Array.from({ length: n }, (_, j) => Float64Array.from(rows[0], (_, i) => (i <= j ? rows[i][j] : 0)));
  return solveColumns(triangle, target.subarray(0, n), m * Number.EPSILON);
}

/**
 * Solve a system with a square matrix; a direction that nothing constrains gets nothing.
 *
 * One-sided Jacobi rotations (Hestenes 1958, J. SIAM 6, 51) turn the columns until they are orthogonal, their lengths
 * being the singular values.
 *
 * @param columns Of the matrix; overwritten.
 * @param least Singular value, of the largest, that still counts.
 */
function solveColumns(columns: Float64Array[], target: Float64Array, least: number): Float64Array {
  const axes = columns.map((_, j) => Float64Array.from(columns, (_, i) => (i === j ? 1 : 0)));
  for (let sweep = 0, isDone = false; !isDone && sweep < MOST_SWEEPS; sweep++) {
    isDone = true;
    for (let q = 1; q < columns.length; q++)
      for (let p = 0; p < q; p++) {
        const [a, b] = [product(columns[p], columns[p]), product(columns[q], columns[q])];
        const both = product(columns[p], columns[q]);
        if (Math.abs(both) <= Number.EPSILON * Math.sqrt(a * b)) continue;
        isDone = false;
        const ratio = (b - a) / (2 * both);
        const tangent = (ratio < 0 ? -1 : 1) / (Math.abs(ratio) + Math.hypot(1, ratio));
        for (const vectors of [columns, axes]) turn(vectors[p], vectors[q], Math.atan(tangent));
      }
  }
  const square = columns.map((column) => product(column, column));
  const limit = least ** 2 * Math.max(...square);
  const solution = new Float64Array(columns.length);
  axes.forEach((axis, j) => {
    const amount = square[j] > limit ? product(columns[j], target) / square[j] : 0;
    axis.forEach((value, i) => (solution[i] += amount * value));
  });
  return solution;
}

/** Turn two vectors by an angle in the plane that they span. */
function turn(one: Float64Array, other: Float64Array, angle: number): void {
  const [sin, cos] = [Math.sin(angle), Math.cos(angle)];
  one.forEach((value, i) => ([one[i], other[i]] = [cos * value - sin * other[i], sin * value + cos * other[i]]));
}

function product(one: Float64Array, other: Float64Array): number {
  return one.reduce((total, value, i) => total + value * other[i], 0);
}
