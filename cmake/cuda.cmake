# The CUDA backend: compiled when nvcc is found (LIK_CUDA=AUTO), required with LIK_CUDA=ON. nvcc may stand on PATH, in
# CUDA_HOME, or in PyPI's compiler packages (nvidia-cuda-nvcc and friends, found through python3). The runtime is linked
# statically and finds the driver when it is first used, so that the library loads on machines without a GPU.
if(LIK_CUDA STREQUAL "OFF")
    return()
endif()
set(LIK_CUDA_ARCHS "75-real;80-real;86-real;89-real;90a-real;100a-real;120" CACHE STRING
    "GPU architectures the CUDA backend is compiled for, as CMAKE_CUDA_ARCHITECTURES takes them")

if(NOT CMAKE_CUDA_COMPILER)
    find_program(LIK_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin /usr/local/cuda/bin)
    if(NOT LIK_NVCC)
        find_program(LIK_PYTHON NAMES python3 python)
        if(LIK_PYTHON)
            execute_process(COMMAND ${LIK_PYTHON} -c "import glob, os, nvidia\nfor p in nvidia.__path__:\n    for f in glob.glob(os.path.join(p, '*', 'bin', 'nvcc')): print(f)"
                            OUTPUT_VARIABLE LIK_NVCC_WHEEL ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
            string(REGEX REPLACE "\n.*" "" LIK_NVCC_WHEEL "${LIK_NVCC_WHEEL}")
            if(LIK_NVCC_WHEEL)
                set(LIK_NVCC ${LIK_NVCC_WHEEL} CACHE FILEPATH "nvcc" FORCE)
            endif()
        endif()
    endif()
    if(NOT LIK_NVCC)
        if(LIK_CUDA STREQUAL "ON")
            message(FATAL_ERROR "LIK_CUDA is ON, but nvcc is not on PATH, in CUDA_HOME or in python3's nvidia packages")
        endif()
        message(STATUS "CUDA backend: no nvcc found, not built")
        return()
    endif()
    set(CMAKE_CUDA_COMPILER ${LIK_NVCC})
endif()
set(CMAKE_CUDA_ARCHITECTURES ${LIK_CUDA_ARCHS})
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
message(STATUS "CUDA backend: ${CMAKE_CUDA_COMPILER} ${CMAKE_CUDA_COMPILER_VERSION} for ${LIK_CUDA_ARCHS}")

file(GLOB LIK_CUDA_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/cuda/*.cu)
add_library(lik_cuda_objects OBJECT ${LIK_CUDA_SOURCES})
set_target_properties(lik_cuda_objects PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_VISIBILITY_PRESET hidden
                                                  POSITION_INDEPENDENT_CODE ON)
target_include_directories(lik_cuda_objects PRIVATE include src)
target_compile_options(lik_cuda_objects PRIVATE --expt-relaxed-constexpr -Xcompiler=-Wall,-Wextra,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics
                       $<$<BOOL:${LIK_WERROR}>:--Werror=all-warnings>)
target_compile_definitions(lik_objects PUBLIC LIK_WITH_CUDA)
target_sources(lik PRIVATE $<TARGET_OBJECTS:lik_cuda_objects>)
set_target_properties(lik PROPERTIES LINKER_LANGUAGE C CUDA_ARCHITECTURES OFF)
get_filename_component(LIK_CUDA_BIN ${CMAKE_CUDA_COMPILER} DIRECTORY)
find_library(LIK_CUDART_STATIC cudart_static HINTS ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES} ${LIK_CUDA_BIN}/../lib64
             ${LIK_CUDA_BIN}/../lib ${LIK_CUDA_BIN}/../../cuda_runtime/lib REQUIRED)
target_link_options(lik PRIVATE -Wl,--as-needed)
target_link_libraries(lik PRIVATE $<BUILD_INTERFACE:${LIK_CUDART_STATIC}> ${CMAKE_DL_LIBS} rt)
