# WebAssembly: the library and what JavaScript calls, web/exports.c, in one file, build/.../lik.wasm. `make wasm` builds it.
if(NOT LIK_PROCESSOR STREQUAL "wasm32")
    return()
endif()
add_executable(lik_wasm web/exports.c)
set_target_properties(lik_wasm PROPERTIES OUTPUT_NAME lik SUFFIX .wasm)
target_link_libraries(lik_wasm PRIVATE lik_flags lik)
target_link_options(lik_wasm PRIVATE -mexec-model=reactor -Wl,-z,stack-size=1048576 -Wl,--strip-all)
