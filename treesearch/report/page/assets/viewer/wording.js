// Gives the numbers as text: `whole`, `percent`, `decimal`, `signed`, `counted`.

const whole = (n) => n.toLocaleString("en");

function percent(share) {
  const value = 100 * share;
  if (value === 0 || value === 100) return `${value} %`;
  if (value >= 10) return `${value.toFixed(1)} %`;
  if (value < 0.0001) return "< 0.0001 %";
  const digits = value >= 1 ? 3 : 2;
  return `${value.toLocaleString("en", { minimumSignificantDigits: digits, maximumSignificantDigits: digits })} %`;
}

const decimal = (value, digits = 2) => (Number.isFinite(value) ? value.toFixed(digits) : "∞");

function signed(value, digits = 0) {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? text : (value > 0 ? "+" : "−") + text;
}

const counted = (n, one, many = `${one}s`) => `${whole(n)} ${n === 1 ? one : many}`;
