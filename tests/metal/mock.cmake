# Metal without a Mac: libobjc and Metal.framework in one shared object that runs kernels in the emulator, and the tests of the
# backend's host on it. The kernels' source is compiled as C++, which takes clang's vectors.
find_program(LIK_CLANGXX clang++)
if(NOT LIK_METAL_EMBEDDED OR NOT LIK_CLANGXX OR APPLE OR LIK_SANITIZE OR NOT BUILD_SHARED_LIBS)
    return()
endif()
set(metal ${CMAKE_CURRENT_LIST_DIR})
set(root ${PROJECT_SOURCE_DIR})
file(GLOB depends CONFIGURE_DEPENDS ${metal}/*.h ${metal}/metal_stdlib ${root}/src/metal/*.h ${root}/src/metal/*.metal)
set(objects)
foreach(name emulate emulator kernels)
    set(object ${CMAKE_CURRENT_BINARY_DIR}/mock_${name}.o)
    add_custom_command(OUTPUT ${object} VERBATIM DEPENDS ${metal}/${name}.cpp ${depends}
                       COMMAND ${LIK_CLANGXX} -std=c++17 -O2 -g -fPIC -fvisibility=hidden -ffp-contract=off -DLIK_STATIC
                               -isystem ${metal} -I${root}/src -I${root}/include -c ${metal}/${name}.cpp -o ${object})
    list(APPEND objects ${object})
endforeach()
# The table of kernels, and what it takes: this library's own, hidden, for the one under test has it hidden too.
add_library(lik_mock_metal SHARED ${metal}/mock_objc.c ${metal}/mock_metal.c ${metal}/no_races.c ${root}/src/metal/plan.c
            ${root}/src/base/error.c ${root}/src/base/names.c ${objects})
target_include_directories(lik_mock_metal PRIVATE ${root}/src ${root}/include)
target_compile_definitions(lik_mock_metal PRIVATE LIK_STATIC)
target_link_libraries(lik_mock_metal PRIVATE lik_flags Threads::Threads ${CMAKE_DL_LIBS} stdc++)
add_executable(lik_metal_host ${metal}/host.c)
target_include_directories(lik_metal_host PRIVATE ${root}/src)
target_link_libraries(lik_metal_host PRIVATE -Wl,--no-as-needed lik_mock_metal lik_flags lik Threads::Threads m)
