/** Command-line flags of the scripts: what is wrong with them ends the process with code 2 and names the flag. */
import { type ParseArgsConfig, parseArgs } from "node:util"

export const refuse = (message: string): never => {
  console.error(message)
  process.exit(2)
}

export const flagsOf = <const O extends NonNullable<ParseArgsConfig["options"]>>(options: O) => {
  try {
    return parseArgs({ options }).values
  } catch (error) {
    return refuse(error instanceof Error ? error.message : String(error))
  }
}

export const whole = (name: string, text: string, least: number): number => {
  const value = Number(text)
  if (/^\d+$/.test(text) && Number.isSafeInteger(value) && value >= least) return value
  return refuse(`--${name} is ${text}; use a whole number from ${least} on`)
}
