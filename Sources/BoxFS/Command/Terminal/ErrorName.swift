import Glibc

/// An errno's name, `ENOENT`, or its number.
func errorName(_ number: Int32) -> String {
    // glibc 2.32; Swift's Glibc module leaves it out, because it asks for _GNU_SOURCE.
    guard let symbol = dlsym(nil, "strerrorname_np") else { return String(number) }
    let strerrorname = unsafeBitCast(symbol, to: (@convention(c) (Int32) -> UnsafePointer<CChar>?).self)
    return strerrorname(number).map { String(cString: $0) } ?? String(number)
}

/// A duration for people: three digits and a unit.
func durationText(nanoseconds: UInt64) -> String {
    var (value, unit) = (Double(nanoseconds), 0)
    let units = ["ns", "µs", "ms", "s"]
    while value >= 1000, unit < units.count - 1 { (value, unit) = (value / 1000, unit + 1) }
    if unit == 0 || value >= 100 { return "\(Int(value.rounded())) \(units[unit])" }
    let digits = value >= 10 ? 10.0 : 100.0
    return "\((value * digits).rounded() / digits) \(units[unit])"
}
