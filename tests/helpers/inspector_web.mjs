// The Inspector's web UI in a browser: every tool is executed by its button, and what asks is answered in its dialog.
// Arguments: address, browser, directory for pictures. Prints a JSON object.
import { createRequire } from "node:module";

const require = createRequire(process.cwd() + "/");
const { chromium } = require("playwright-core");
const [address, executablePath, pictures] = process.argv.slice(2);
const QUIET = ["disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-component-update"];
const args = ["no-sandbox", "disable-sync", ...QUIET].map((name) => `--${name}`);
const browser = await chromium.launch({ executablePath, args });
const page = await browser.newPage({ viewport: { width: 1500, height: 1000 } });
page.setDefaultTimeout(60_000);
// An ordinary call's progress is a notice in words and numbers there; bars are drawn for tasks only (seen on 2.12.0).
const progress = page.getByText(/\d \/ 100 \(\d+%\)$/).first();
const found = { answers: {}, dialogs: [], progress: [] };
try {
  await page.goto(address);
  await page.getByRole("switch", { name: /^Connect or disconnect/ }).click({ force: true });
  await page.getByText("Tools", { exact: true }).first().click();
  for (const [title, name, values] of [
    ["Back up Scarlet's memory", "backup", {}],
    ["Verify a backup", "verify_backup", {}],
    ["List backups", "list_backups", {}],
    ["Check the database", "db_integrity", {}],
    ["Restore Scarlet's memory", "restore", { backup: "latest" }],
    ["Remove old backups", "prune_backups", {}],
  ]) {
    await page.getByRole("button", { name: title }).click();
    for (const [field, value] of Object.entries(values)) {
      await page.getByLabel(field, { exact: true }).first().fill(value);
    }
    await page.getByRole("button", { name: "Execute Tool" }).click();
    if (name === "restore") {
      const dialog = page.getByRole("dialog").filter({ hasText: "Restore the backup" });
      await dialog.waitFor();
      found.dialogs.push(await dialog.innerText());
      await page.screenshot({ path: `${pictures}/dialog.png` });
      await dialog.getByRole("checkbox").first().check({ force: true });
      await dialog.getByRole("button", { name: /submit|accept/i }).first().click();
      found.progress.push(await progress.innerText());
    }
    await page.getByText(`"status": "done"`).or(page.getByText(/healthy|backups/)).first().waitFor();
    if (name === "restore") {
      found.progress.push(await progress.innerText());
    }
    await page.waitForTimeout(name === "restore" ? 10_000 : 3_000);
    found.answers[name] = await page.innerText("body");
    await page.screenshot({ path: `${pictures}/${name}.png` });
  }
} catch (error) {
  await page.screenshot({ path: `${pictures}/failed.png` });
  found.failed = String(error);
  found.body = await page.innerText("body");
}
await browser.close();
console.log(JSON.stringify(found));
