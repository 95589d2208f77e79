/** A running hash over everything that happened (FNV-1a in two lanes): the same seed must give the same one. */
export class TraceHash {
  #a = 0x811c9dc5
  #b = 0x1b873593

  byte(byte: number): void {
    this.#a = Math.imul(this.#a ^ byte, 0x01000193)
    this.#b = Math.imul(this.#b ^ byte, 0x85ebca6b) ^ (this.#b >>> 15)
  }

  bytes(bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) this.byte(bytes[i]!)
  }

  text(text: string): void {
    for (let i = 0; i < text.length; i++) this.byte(text.charCodeAt(i) & 0xff)
    this.byte(0xff)
  }

  /** Assumes a safe integer. */
  number(value: number): void {
    this.#a = Math.imul(this.#a ^ (value | 0), 0x01000193)
    const high = Math.floor(value / 0x1_0000_0000) | 0
    this.#a = Math.imul(this.#a ^ high, 0x01000193)
    this.#b = (Math.imul(this.#b ^ (value | 0), 0x85ebca6b) ^ (this.#b >>> 13)) + high
  }

  get hex(): string {
    return (this.#a >>> 0).toString(16).padStart(8, "0") + (this.#b >>> 0).toString(16).padStart(8, "0")
  }
}
