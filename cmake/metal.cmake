# The Metal backend: in builds for macOS (LIK_METAL=AUTO), anywhere with LIK_METAL=ON. It links nothing: Metal is opened when
# a context asks for it, so that it compiles on every platform, and the tests give it a Metal of theirs.
if(LIK_METAL STREQUAL "OFF" OR (LIK_METAL STREQUAL "AUTO" AND NOT APPLE))
    return()
endif()
file(GLOB LIK_METAL_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/metal/*.c)
file(GLOB LIK_METAL_KERNELS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/metal/*.metal)
file(GLOB LIK_METAL_HEADERS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/metal/*.h ${PROJECT_SOURCE_DIR}/src/shared/*.h)
set(LIK_METAL_EMBEDDED ${PROJECT_BINARY_DIR}/metal_source.c)
add_custom_command(OUTPUT ${LIK_METAL_EMBEDDED} VERBATIM
                   COMMAND ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR}/src -DOUTPUT=${LIK_METAL_EMBEDDED}
                           -P ${PROJECT_SOURCE_DIR}/cmake/embed_metal.cmake
                   DEPENDS ${PROJECT_SOURCE_DIR}/cmake/embed_metal.cmake ${LIK_METAL_KERNELS} ${LIK_METAL_HEADERS})
target_sources(lik_objects PRIVATE ${LIK_METAL_SOURCES} ${LIK_METAL_EMBEDDED})
target_compile_definitions(lik_objects PUBLIC LIK_WITH_METAL)
target_link_libraries(lik PRIVATE ${CMAKE_DL_LIBS})
