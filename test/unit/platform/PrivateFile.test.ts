import { execFileSync } from "node:child_process"
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { afterAll } from "vitest"
import { appendPrivateLine, readPrivateFile } from "../../../src/platform/PrivateFile.ts"

const folder = mkdtempSync(join(tmpdir(), "millrace-private-"))
afterAll(() => rmSync(folder, { recursive: true }))

const fileOf = (name: string, text: string, mode = 0o600): string => {
  const file = join(folder, name)
  writeFileSync(file, text)
  chmodSync(file, mode)
  return file
}

const read = (file: string, bytesMax = 100): string => {
  const found = readPrivateFile(file, bytesMax)
  return found._tag === "Read" ? found.text : `${found.value}: ${found.remedy}`
}

describe("a private file", () => {
  it("is read while its owner alone may look into it", () => {
    for (const mode of [0o600, 0o400]) assert.strictEqual(read(fileOf(`mode-${mode}`, "text", mode)), "text")
    for (const mode of [0o644, 0o640, 0o604, 0o620, 0o602, 0o610]) {
      const file = fileOf(`mode-${mode}`, "text", mode)
      assert.strictEqual(read(file), `of mode 0${mode.toString(8)}: others may not read or write it: chmod 600 ${file}`)
      assert.strictEqual(statSync(file).mode & 0o777, mode, "it is not changed")
    }
  })

  it("is not there, no file, no text or too long: said so", () => {
    assert.strictEqual(read(join(folder, "none")), "not there: check the path and its rights")
    assert.match(read(folder), /^not a file/)
    const pipe = join(folder, "pipe")
    execFileSync("mkfifo", ["-m", "600", pipe])
    assert.match(read(pipe), /^not a file/)
    const binary = join(folder, "binary")
    writeFileSync(binary, Uint8Array.of(0xff, 0xfe), { mode: 0o600 })
    assert.match(read(binary), /^no UTF-8 text/)
    assert.strictEqual(read(fileOf("full", "x".repeat(100))), "x".repeat(100))
    assert.strictEqual(read(fileOf("over", "x".repeat(101))), "101 bytes long: use at most 100")
  })

  it("is looked at behind a link, whose own mode says nothing", () => {
    const target = fileOf("target", "text", 0o644)
    const link = join(folder, "link")
    symlinkSync(target, link)
    assert.match(read(link), /^of mode 0644/)
    chmodSync(target, 0o600)
    assert.strictEqual(read(link), "text")
  })

  it("is made with mode 0600 and added to line by line, a last line without an end included", () => {
    const file = join(folder, "lines")
    const append = (line: string | undefined) => appendPrivateLine(file, 20, () => line)
    assert.deepStrictEqual(append("one"), { _tag: "Read", text: "" })
    assert.strictEqual(statSync(file).mode & 0o777, 0o600)
    assert.deepStrictEqual(append(undefined), { _tag: "Read", text: "one\n" })
    writeFileSync(file, "one\ntwo")
    append("three")
    assert.strictEqual(readFileSync(file, "utf8"), "one\ntwo\nthree\n")
    assert.deepInclude(append("123456"), { _tag: "Refused", value: "full" })
    append("12345")
    assert.strictEqual(readFileSync(file, "utf8").length, 20)
    chmodSync(file, 0o640)
    assert.deepInclude(append("x"), { _tag: "Refused", value: "of mode 0640" })
  })
})
