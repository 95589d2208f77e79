/**
 * What kind of image some bytes are, judged by the bytes.
 *
 * Pure. Neither the file name nor the Content-Type of a server is trusted to name the kind; the Content-Type only lets
 * through kinds that the table does not know. No decoding and no validation beyond the first bytes.
 *
 * Invariant: a page of HTML is never an image, whatever the server calls it; an extension is `[a-z0-9]{1,8}`.
 */
export interface ImageType {
  readonly extension: string
  readonly contentType: string
}

/** Bytes of the beginning that are enough to decide; SVG files may open with long comments. */
export const headBytes = 4_096

const png: ImageType = { extension: "png", contentType: "image/png" }
const jpg: ImageType = { extension: "jpg", contentType: "image/jpeg" }
const gif: ImageType = { extension: "gif", contentType: "image/gif" }
const webp: ImageType = { extension: "webp", contentType: "image/webp" }
const svg: ImageType = { extension: "svg", contentType: "image/svg+xml" }
const ico: ImageType = { extension: "ico", contentType: "image/x-icon" }
const bmp: ImageType = { extension: "bmp", contentType: "image/bmp" }
const avif: ImageType = { extension: "avif", contentType: "image/avif" }

const text = (bytes: Uint8Array, start: number, end: number): string =>
  String.fromCharCode(...bytes.subarray(start, end))

/** Sizes a BMP information header can have; "BM" alone is how many texts begin. */
const bmpHeaders = new Set([12, 40, 52, 56, 64, 108, 124])

/** The kind of image these first bytes begin, or `undefined`. */
export const detect = (head: Uint8Array): ImageType | undefined => {
  if (text(head, 0, 8) === "\x89PNG\r\n\x1a\n") return png
  if (head.length >= 3 && head[0] === 0xff && head[1] === 0xd8 && head[2] === 0xff) return jpg
  const six = text(head, 0, 6)
  if (six === "GIF87a" || six === "GIF89a") return gif
  if (six.startsWith("RIFF") && text(head, 8, 12) === "WEBP") return webp
  if (text(head, 4, 8) === "ftyp" && isAvif(head)) return avif
  if (six.startsWith("BM") && head.length >= 18 && head[15] === 0 && bmpHeaders.has(head[14]!)) return bmp
  if (six.startsWith("\0\0\x01\0") && head.length >= 22 && head[4]! + head[5]! > 0 && head[9] === 0) return ico
  return isSvg(head) ? svg : undefined
}

/** Major brand, or one of the compatible brands of the first box. */
const isAvif = (head: Uint8Array): boolean => {
  const end = Math.min(head.length, (head[2]! << 8) | head[3]!)
  for (let at = 8; at + 4 <= end; at += 4) {
    const brand = text(head, at, at + 4)
    if (at !== 12 && (brand === "avif" || brand === "avis")) return true
  }
  return false
}

/** Text whose first element is `svg`, after any XML declaration, comments and document type. */
const isSvg = (head: Uint8Array): boolean => {
  const start = startOf(head)
  return /^(?:<[!?][^<]*)*<(?:[a-z0-9]+:)?svg[\s>/]/i.test(start) && !/^<!doctype\s+html/i.test(start)
}

/** The first text of a file, without byte order mark, leading white space and comments. */
const startOf = (head: Uint8Array): string => {
  let rest = text(head, 0, headBytes)
    .replace(/^\xef\xbb\xbf/, "")
    .trimStart()
  if (!rest.startsWith("<")) return rest
  for (let at = rest.indexOf("<!--"); at !== -1; at = rest.indexOf("<!--", at)) {
    const end = rest.indexOf("-->", at + 4)
    rest = rest.slice(0, at) + (end === -1 ? "" : rest.slice(end + 3))
  }
  return rest.trimStart()
}

/** Text that a browser would show as a page. */
export const looksLikeHtml = (head: Uint8Array): boolean =>
  /^<(?:!doctype\s+html|html|head|body|title|script|style|meta|h1|p|div)[\s>/]/i.test(startOf(head))

const byContentType: Readonly<Record<string, string>> = {
  "image/tiff": "tiff",
  "image/heic": "heic",
  "image/heif": "heif",
  "image/jxl": "jxl",
  "image/apng": "png",
  "image/svg+xml": "svg"
}

/**
 * Decides whether a body is an image and what it is called: by magic bytes, else by a Content-Type `image/*` of bytes
 * that do not look like HTML. `undefined` means: no image.
 */
export const classify = (head: Uint8Array, contentType: string | undefined): ImageType | undefined => {
  if (head.length === 0) return undefined
  const detected = detect(head)
  if (detected !== undefined) return detected
  const mime = mimeType(contentType)
  if (!mime.startsWith("image/") || looksLikeHtml(head)) return undefined
  return { extension: byContentType[mime] ?? "img", contentType: mime }
}

/** The type of a Content-Type value in lower case, without parameters. */
export const mimeType = (contentType: string | undefined): string =>
  (contentType ?? "").split(";", 1)[0]!.trim().toLowerCase()
