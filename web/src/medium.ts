/** Wavelengths in air and in vacuum, at rest and in motion; the counterpart of `anna_onnx.medium`. */

import type { Medium } from "./spectrum.ts";

/** Speed of light, km/s. */
export const C_KMS = 299792.458;

/** Return the refractive index of standard air (Ciddor 1996, Applied Optics 35, 1566, eq. 1). */
export function refractiveIndex(vacuum: number): number {
  const wavelength = Math.max(vacuum, 1990);
  const s2 = (1e4 / wavelength) ** 2;
  const refractivity = 0.05792105 / (238.0185 - s2) + 0.00167917 / (57.362 - s2);
  // Below 2000 Å wavelengths are in vacuum by convention; the index falls to 1 over 10 Å.
  return 1 + refractivity * Math.min((wavelength - 1990) / 10, 1);
}

export function vacuumToAir(vacuum: number): number {
  return vacuum / refractiveIndex(vacuum);
}

export function airToVacuum(air: number): number {
  let vacuum = air;
  for (let round = 0; round < 4; round++) vacuum = air * refractiveIndex(vacuum);
  return vacuum;
}

/** Convert wavelengths between media; those in an unknown medium are taken to be in `to` already. */
export function convert(wavelength: Float64Array, medium: Medium, to: Medium): Float64Array {
  if (medium === "vacuum" && to === "air") return wavelength.map(vacuumToAir);
  if (medium === "air" && to === "vacuum") return wavelength.map(airToVacuum);
  return wavelength;
}

/** Return observed over emitted wavelength for a recession velocity in km/s, relativistic. */
export function doppler(velocity: number): number {
  const beta = velocity / C_KMS;
  return Math.sqrt((1 + beta) / (1 - beta));
}
