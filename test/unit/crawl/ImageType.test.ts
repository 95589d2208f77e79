import { assert, describe, it } from "@effect/vitest"
import { makeImage } from "../../../examples/sample-site/images.ts"
import * as ImageType from "../../../src/crawl/ImageType.ts"

const bytes = (text: string) => Uint8Array.from(text, (char) => char.charCodeAt(0))
const extension = (text: string, contentType?: string) => ImageType.classify(bytes(text), contentType)?.extension

describe("ImageType", () => {
  it.each([
    { text: "\x89PNG\r\n\x1a\n....", expected: "png" },
    { text: "\xff\xd8\xff\xe0", expected: "jpg" },
    { text: "GIF87a", expected: "gif" },
    { text: "GIF89a..", expected: "gif" },
    { text: "RIFF\x10\0\0\0WEBPVP8 ", expected: "webp" },
    { text: "RIFF\x10\0\0\0WAVEfmt ", expected: undefined },
    { text: "\0\0\0\x1cftypavif\0\0\0\0mif1", expected: "avif" },
    { text: "\0\0\0\x1cftypmif1\0\0\0\0miafavif", expected: "avif" },
    { text: "\0\0\0\x18ftypmp42\0\0\0\0isom", expected: undefined },
    { text: `BM${"\0".repeat(12)}\x28\0\0\0`, expected: "bmp" },
    { text: "BMW builds cars, and this is a text", expected: undefined },
    { text: `\0\0\x01\0\x01\0\x10\x10\0\0${"\0".repeat(12)}`, expected: "ico" },
    { text: "<svg>", expected: "svg" },
    { text: "\xef\xbb\xbf \n<svg xmlns='x'>", expected: "svg" },
    { text: "<?xml version='1.0'?><!-- <html> --><!DOCTYPE svg [<!ENTITY a 'b'>]>\n<svg:svg>", expected: "svg" },
    { text: "<?xml version='1.0'?><html><svg>", expected: undefined },
    { text: "<!DOCTYPE html><svg>", expected: undefined },
    { text: "<svgs>", expected: undefined },
    { text: "Not an image: <svg>", expected: undefined },
    { text: "", expected: undefined }
  ])("$expected by the bytes of $text", ({ expected, text }) => {
    assert.strictEqual(ImageType.detect(bytes(text))?.extension, expected)
    assert.strictEqual(extension(text, "text/html"), expected)
  })

  it("believes a Content-Type only where the bytes are neither known nor HTML", () => {
    assert.strictEqual(extension("II*\0....", "image/tiff"), "tiff")
    assert.strictEqual(extension("????", "image/x-strange+thing; q=1"), "img")
    assert.strictEqual(extension("????", "application/octet-stream"), undefined)
    assert.strictEqual(extension("????"), undefined)
    assert.strictEqual(extension("", "image/png"), undefined)
    for (const html of ["<!doctype HTML>", "<html>", " \n<!-- x --><!-- y -->\n<head>", "<script>1", "<title>404"]) {
      assert.strictEqual(extension(html, "image/png"), undefined, html)
    }
    assert.strictEqual(extension("GIF89a", "image/png"), "gif")
  })

  it("takes no time over hostile beginnings", () => {
    for (const part of ["<!---->", "<!--", "<!", "<?", " ", "<?xml "]) {
      assert.isUndefined(ImageType.classify(bytes(part.repeat(4_000)), "image/png") && undefined)
    }
  })

  it("knows the images of the sample site", () => {
    for (let i = 0; i < 8; i++) {
      const image = makeImage(i)
      assert.deepStrictEqual(ImageType.detect(image.bytes.subarray(0, ImageType.headBytes)), {
        extension: image.extension,
        contentType: image.contentType
      })
    }
  })
})
