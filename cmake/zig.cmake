# A toolchain for every target: the clang, the linker and the C libraries of the PyPI package ziglang.
#     cmake -B build/x -DCMAKE_TOOLCHAIN_FILE=cmake/zig.cmake -DLIK_ZIG=.../ziglang/zig -DLIK_ZIG_TARGET=aarch64-linux-gnu.2.28
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES LIK_ZIG LIK_ZIG_TARGET)
string(REGEX MATCH "^([^-]+)-([a-z]+)" _ "${LIK_ZIG_TARGET}")
set(CMAKE_SYSTEM_PROCESSOR ${CMAKE_MATCH_1})
if(CMAKE_MATCH_2 STREQUAL "linux")
    set(CMAKE_SYSTEM_NAME Linux)
elseif(CMAKE_MATCH_2 STREQUAL "windows")
    set(CMAKE_SYSTEM_NAME Windows)
elseif(CMAKE_MATCH_2 STREQUAL "macos")
    set(CMAKE_SYSTEM_NAME Darwin)
elseif(CMAKE_MATCH_2 STREQUAL "wasi")
    set(CMAKE_SYSTEM_NAME Generic)
else()
    message(FATAL_ERROR "LIK_ZIG_TARGET is \"${LIK_ZIG_TARGET}\", must be PROCESSOR-linux-LIBC, PROCESSOR-windows-gnu, PROCESSOR-macos.VERSION or wasm32-wasi")
endif()

# CMake wants a file for each tool; zig is one program with subcommands.
set(LIK_ZIG_TOOLS ${CMAKE_BINARY_DIR}/zig)
foreach(tool cc ar ranlib rc)
    set(script "exec \"${LIK_ZIG}\" ${tool} \"$@\"")
    if(tool STREQUAL "cc") # its word for an architecture with features is a processor
        set(script "for word do shift
case $word in -march=armv8.2-a+*) word=-mcpu=generic+\${word#*+} ;; esac
set -- \"$@\" \"$word\"
done
exec \"${LIK_ZIG}\" cc -target ${LIK_ZIG_TARGET} \"$@\"")
    endif()
    file(WRITE ${LIK_ZIG_TOOLS}/${tool} "#!/bin/sh\n${script}\n")
    file(CHMOD ${LIK_ZIG_TOOLS}/${tool} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
endforeach()
set(CMAKE_C_COMPILER ${LIK_ZIG_TOOLS}/cc)
set(CMAKE_AR ${LIK_ZIG_TOOLS}/ar)
set(CMAKE_RANLIB ${LIK_ZIG_TOOLS}/ranlib)
set(CMAKE_RC_COMPILER ${LIK_ZIG_TOOLS}/rc)
set(CMAKE_INSTALL_NAME_TOOL /bin/true) # zig's linker needs none
set(CMAKE_C_FLAGS_INIT -g0) # else every file has debug information

set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
