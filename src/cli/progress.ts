/** A progress bar on a terminal, plain lines elsewhere. Pure but for what `write` does. */
import type { Progress } from "../crawl/Master.ts"

const width = 28

/** One line for a terminal, redrawn in place. */
export const bar = (progress: Progress, columns: number): string => {
  const done = progress.pages + progress.brokenPages + progress.images
  const all = done + progress.waiting
  const filled = all === 0 ? 0 : Math.floor((width * done) / all)
  const line = `[${"#".repeat(filled)}${"-".repeat(width - filled)}] ${done}/${all}  ${words(progress)}`
  return `\r\x1b[2K${line.slice(0, Math.max(20, columns - 1))}`
}

/** One line for a log. */
export const line = (progress: Progress): string => `${words(progress)}, ${progress.waiting} waiting`

const words = ({ brokenPages, bytes, downloaded, failed, pages }: Progress): string => {
  const bad = failed + brokenPages > 0 ? `, ${failed} failed, ${brokenPages} broken links` : ""
  return `${pages} pages, ${downloaded} images (${size(bytes)})${bad}`
}

export const size = (bytes: number): string => {
  if (bytes < 1_024) return `${bytes} B`
  if (bytes < 1_048_576) return `${(bytes / 1_024).toFixed(1)} KiB`
  return bytes < 1_073_741_824 ? `${(bytes / 1_048_576).toFixed(1)} MiB` : `${(bytes / 1_073_741_824).toFixed(2)} GiB`
}

/** Two columns, the second to the right. */
export const table = (rows: ReadonlyArray<readonly [string, string]>): string => {
  const left = Math.max(...rows.map(([name]) => name.length))
  const right = Math.max(...rows.map(([, value]) => value.length))
  return rows.map(([name, value]) => `  ${name.padEnd(left)}  ${value.padStart(right)}`).join("\n")
}
