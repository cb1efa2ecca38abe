# find_package(mfq) gives mfq::mfq, the shared library, and mfq::mfq_static where the static one is installed.

if(TARGET mfq::mfq)
  return()
endif()

get_filename_component(_mfq_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

# Found from here, so that the tree can be moved; or where `make install` was told to put them, which it writes here.
foreach(_mfq_candidate lib/${CMAKE_LIBRARY_ARCHITECTURE} lib64 lib "@LIBDIR@")
  get_filename_component(_mfq_libdir "${_mfq_candidate}" ABSOLUTE BASE_DIR "${_mfq_prefix}")
  if(EXISTS "${_mfq_libdir}/libmfq.so")
    break()
  endif()
endforeach()

if(NOT EXISTS "${_mfq_libdir}/libmfq.so")
  set(mfq_FOUND FALSE)
  set(mfq_NOT_FOUND_MESSAGE "there is no libmfq.so in ${_mfq_prefix}/lib nor in ${_mfq_libdir}")
  return()
endif()

add_library(mfq::mfq SHARED IMPORTED)
set_target_properties(mfq::mfq PROPERTIES
  IMPORTED_LOCATION "${_mfq_libdir}/libmfq.so"
  INTERFACE_INCLUDE_DIRECTORIES "${_mfq_prefix}/include")

if(EXISTS "${_mfq_libdir}/libmfq.a")
  add_library(mfq::mfq_static STATIC IMPORTED)
  set_target_properties(mfq::mfq_static PROPERTIES
    IMPORTED_LOCATION "${_mfq_libdir}/libmfq.a"
    INTERFACE_INCLUDE_DIRECTORIES "${_mfq_prefix}/include"
    INTERFACE_LINK_LIBRARIES "pthread;dl;m")
endif()
