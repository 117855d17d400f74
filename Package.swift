// swift-tools-version: 6.2
import PackageDescription

// `-enable-testing` in every configuration, so that one release build serves the product and its tests.
let settings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .unsafeFlags(["-enable-testing"]),
]

let package = Package(
    name: "boxfs",
    products: [
        .executable(name: "boxfs", targets: ["Launcher"]),
        .executable(name: "boxfs-command", targets: ["BoxFS"]),
        .executable(name: "boxfs-server", targets: ["Server"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-nio-extras", from: "1.35.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    ],
    targets: [
        .systemLibrary(name: "CFuse3", path: "Sources/CLibs/CFuse3", pkgConfig: "fuse3", providers: [.apt(["libfuse3-dev"])]),
        .target(name: "CLinux", path: "Sources/CLibs/CLinux"),
        .systemLibrary(name: "CCurl", path: "Sources/CLibs/CCurl", pkgConfig: "libcurl", providers: [.apt(["libcurl4-openssl-dev"])]),
        .systemLibrary(name: "COpenSSL", path: "Sources/CLibs/COpenSSL", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(name: "CGit2", path: "Sources/CLibs/CGit2", pkgConfig: "libgit2", providers: [.apt(["libgit2-dev"])]),
        .target(name: "Shared", dependencies: ["CLinux", "COpenSSL"], swiftSettings: settings),
        .target(
            name: "ChunkCache",
            dependencies: ["Shared", .product(name: "GRDB", package: "GRDB.swift")],
            swiftSettings: settings),
        .executableTarget(
            name: "Launcher",
            // C alone: scripts would wait for the Swift runtime's libraries at each `boxfs flush`.
            linkerSettings: [.unsafeFlags(["-nostartfiles", "-static-executable"], .when(configuration: .release))]),
        .executableTarget(
            name: "BoxFS",
            dependencies: [
                "CFuse3", "CCurl", "CLinux", "ChunkCache", "Shared",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "GRDB", package: "GRDB.swift"),
                .product(name: "GRDBSQLite", package: "GRDB.swift"),
            ],
            swiftSettings: settings),
        .executableTarget(
            name: "Server",
            dependencies: [
                "CGit2", "Shared",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "GRDB", package: "GRDB.swift"),
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HummingbirdCore", package: "hummingbird"),
                .product(name: "HummingbirdTLS", package: "hummingbird"),
                .product(name: "HummingbirdHTTP2", package: "hummingbird"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOHTTPTypes", package: "swift-nio-extras"),
                .product(name: "NIOHTTPTypesHTTP1", package: "swift-nio-extras"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOWebSocket", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ],
            swiftSettings: settings),
        .target(name: "TestSupport", path: "Tests/TestSupport", swiftSettings: settings),
        .testTarget(name: "BoxFSTests", dependencies: ["BoxFS", "Shared", "TestSupport"], swiftSettings: settings),
        .testTarget(
            name: "ServerTests",
            dependencies: [
                "BoxFS", "ChunkCache", "Server", "Shared", "TestSupport", .product(name: "Hummingbird", package: "hummingbird"), .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: settings),
        .testTarget(name: "ChunkCacheTests", dependencies: ["ChunkCache", "Shared", "TestSupport"], swiftSettings: settings),
        .testTarget(name: "SharedTests", dependencies: ["Shared"], swiftSettings: settings),
        .systemLibrary(name: "CXattr", path: "Tests/CXattr"),
        .testTarget(name: "EndToEndTests", dependencies: ["CXattr", "Shared", "TestSupport"], swiftSettings: settings),
    ],
    swiftLanguageModes: [.v6]
)
