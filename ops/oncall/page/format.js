// Formats numbers and times for people. Times are in UTC, as in the log.

const pad = (number, digits = 2) => String(number).padStart(digits, "0");

export function clock(seconds, withMilliseconds = false) {
  const date = new Date(seconds * 1000);
  const time = `${pad(date.getUTCHours())}:${pad(date.getUTCMinutes())}:${pad(date.getUTCSeconds())}`;
  return withMilliseconds ? `${time}.${pad(date.getUTCMilliseconds(), 3)}` : time;
}

export const day = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 10);

/** A time range, with the day of its end where that is another. */
export function between(start, end) {
  const until = day(start) === day(end) ? clock(end) : `${day(end)} ${clock(end)}`;
  return `${day(start)} ${clock(start)} – ${until} UTC (${duration(end - start)})`;
}

export function duration(seconds) {
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 100 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
  return `${Math.round(seconds / 86400)} days`;
}

export function milliseconds(value) {
  if (value >= 10000) return `${digits(value / 1000)} s`;
  return `${digits(value)} ms`;
}

/** A number with three significant digits, or without decimals from 100 on. */
export function digits(value) {
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size >= 100 || Number.isInteger(value)) return String(Math.round(value));
  return String(Number(value.toPrecision(3)));
}

function scaled(value, base, units) {
  let scale = 0;
  while (Math.abs(value) >= base && scale < units.length - 1) {
    value /= base;
    scale += 1;
  }
  return `${digits(value)}${units[scale] && ` ${units[scale]}`}`;
}

const BYTES = ["B", "KiB", "MiB", "GiB", "TiB"];

/** A value with its unit, which has CloudWatch's name. */
export function quantity(value, unit = "") {
  if (value === null || value === undefined) return "–";
  const [base, divisor] = unit.split("/");
  const per = divisor ? "/s" : "";
  switch (base) {
    case "Seconds": return milliseconds(value * 1000) + per;
    case "Milliseconds": return milliseconds(value) + per;
    case "Microseconds": return milliseconds(value / 1000) + per;
    case "Bytes": return scaled(value, 1024, BYTES) + per;
    case "Percent": return `${digits(value)} %`;
    default: return scaled(value, 1e6, ["", "M", "G"]) + per;
  }
}

export const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
