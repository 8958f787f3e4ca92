// Drives a browser. Each line of the standard input is a step in JSON, each line of the output what came of it.
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-gpu"] });
const context = await browser.newContext({ viewport: { width: 900, height: 600 }, ignoreHTTPSErrors: true });
context.setDefaultTimeout(20000);
const page = await context.newPage();

// A page that reloads itself (Vite's, when its websocket is cut) may be just ahead of us.
async function go(url) {
  for (let tries = 1; ; tries++) {
    try {
      const response = await page.goto(url, { waitUntil: "load" });
      if (response || tries === 10) return response;
    } catch (error) {
      if (tries === 10 || !/interrupted by another navigation|ERR_ABORTED/.test(error.message)) throw error;
    }
    await page.waitForTimeout(100 * tries);
  }
}

const steps = {
  open: async ({ url }) => {
    const response = await go(url);
    return { status: response.status(), url: page.url(), title: await page.title(), text: await page.innerText("body") };
  },
  now: async () => ({ url: page.url(), title: await page.title(), text: await page.innerText("body") }),
  wait: async ({ text }) => { await page.getByText(text).first().waitFor(); return {}; },
  fill: async ({ selector, text }) => { await page.fill(selector, text); return {}; },
  value: async ({ selector }) => ({ value: await page.inputValue(selector) }),
  shot: async ({ path }) => { await page.screenshot({ path }); return {}; },
  cookies: async () => ({ cookies: await context.cookies() }),
  run: async ({ script }) => ({ value: await page.evaluate(script) }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const step = JSON.parse(line);
  try {
    console.log(JSON.stringify(await steps[step.do](step)));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error.message).split("\n")[0] }));
  }
}
await browser.close();
