import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

const src = (file: string): string => fileURLToPath(new URL(`./src/${file}`, import.meta.url))

export default defineConfig({
  resolve: {
    alias: [
      { find: /^millrace$/, replacement: src("index.ts") },
      { find: /^millrace\/(crawl|testing)$/, replacement: src("$1/index.ts") },
      { find: /^millrace\/(.+)$/, replacement: src("$1.ts") }
    ]
  },
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000
  }
})
